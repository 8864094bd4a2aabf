//! Faults: each is done to a cluster that serves, and undone.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use crate::cluster::{Cluster, LIMIT};
use crate::error::ChaosError;
use crate::history::Recorder;
use crate::proxy::{Cut, NodeId};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// A follower is killed.
    FollowerKilled,
    /// The leader is killed.
    LeaderKilled,
    /// The leader is killed while it writes a snapshot.
    LeaderKilledInSnapshot,
    /// All nodes are killed at once.
    AllKilled,
    /// A follower is away for so long that only a snapshot brings it back.
    FollowerBehind,
    /// A follower is cut off.
    FollowerCutOff,
    /// The leader is cut off; clients still reach it.
    LeaderCutOff,
    /// The leader is heard by nobody, but hears all.
    LeaderMuted,
    /// The leader is stopped, and goes on later as if nothing had happened.
    LeaderPaused,
    /// A node's disk is full.
    FullDisk,
    /// The leader is asked to end.
    LeaderTerminated,
}

/// What one fault did.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The fault.
    pub scenario: Scenario,
    /// The nodes that it was done to.
    pub nodes: Vec<NodeId>,
    /// From the fault to the first operation executed after it, in milliseconds. Where nodes have to end by themselves, or
    /// to be left behind, that comes first.
    pub served_again_ms: u64,
    /// From its end to the first operation executed after that, in milliseconds.
    pub served_after_healing_ms: u64,
    /// The longest time, in milliseconds, that this program itself did not run meanwhile: a busy or sleeping machine makes
    /// the times above long, and is no fault of the cluster.
    pub stall_ms: u64,
}

/// Does `scenario` to the cluster, which must serve, and undoes it.
///
/// # Errors
///
/// The cluster does not survive it, or the scenario did not come about.
pub async fn inflict(
    scenario: Scenario,
    cluster: &mut Cluster,
    random: &mut Pcg64Mcg,
    recorder: &Recorder,
) -> Result<Outcome, ChaosError> {
    let leader = cluster.leader().await?;
    let ids = cluster.ids();
    let followers: Vec<_> = ids.iter().copied().filter(|&id| id != leader).collect();
    let follower = *followers.choose(random).unwrap_or(&leader);
    let nodes = match scenario {
        Scenario::FollowerKilled | Scenario::FollowerBehind | Scenario::FollowerCutOff => vec![follower],
        Scenario::AllKilled => ids.clone(),
        Scenario::FullDisk => vec![*ids.choose(random).unwrap_or(&leader)],
        _ => vec![leader],
    };
    recorder.note(format!("{scenario:?}: nodes {nodes:?}, leader {leader}"));
    let mut fault = Fault { scenario, nodes, done: Instant::now(), cluster, recorder };
    fault.begin(random).await?;
    // With all nodes away, it is their return that counts.
    let served_again = match scenario {
        Scenario::AllKilled => None,
        _ => Some(fault.serves().await?),
    };
    let hold = Duration::from_millis(random.random_range(200..2_500));
    tokio::time::sleep(hold).await;
    let healed = fault.end().await?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Outcome {
        scenario,
        nodes: fault.nodes,
        served_again_ms: millis(served_again.unwrap_or(healed)),
        served_after_healing_ms: millis(healed),
        stall_ms: 0,
    })
}

struct Fault<'a> {
    scenario: Scenario,
    nodes: Vec<NodeId>,
    /// When it was done, or undone.
    done: Instant,
    cluster: &'a mut Cluster,
    recorder: &'a Recorder,
}

impl Fault<'_> {
    fn first(&self) -> NodeId {
        self.nodes.first().copied().unwrap_or_default()
    }

    async fn begin(&mut self, random: &mut Pcg64Mcg) -> Result<(), ChaosError> {
        let node = self.first();
        let cut = *[Cut::Stall, Cut::Reset].choose(random).unwrap_or(&Cut::Stall);
        match self.scenario {
            Scenario::FollowerKilled | Scenario::LeaderKilled | Scenario::AllKilled => self.kill(),
            Scenario::LeaderKilledInSnapshot => self.kill_in_snapshot().await,
            Scenario::FollowerBehind => self.leave_behind().await,
            Scenario::FollowerCutOff | Scenario::LeaderCutOff => {
                let ids = self.cluster.ids();
                self.cluster.links.isolate(node, ids, cut);
                Ok(())
            }
            Scenario::LeaderMuted => {
                for other in self.cluster.ids().into_iter().filter(|&other| other != node) {
                    self.cluster.links.cut(node, other, cut);
                }
                Ok(())
            }
            Scenario::LeaderPaused => Ok(self.cluster.process(node)?.pause(true)?),
            Scenario::FullDisk => self.fill_disk().await,
            Scenario::LeaderTerminated => self.terminate().await,
        }
    }

    /// Undoes it, and returns how long the cluster took to serve then.
    async fn end(&mut self) -> Result<Duration, ChaosError> {
        self.recorder.note("undone");
        self.done = Instant::now();
        match self.scenario {
            Scenario::FollowerCutOff | Scenario::LeaderCutOff | Scenario::LeaderMuted => {
                self.cluster.links.heal();
            }
            Scenario::LeaderPaused => {
                let node = self.first();
                self.cluster.process(node)?.pause(false)?;
            }
            _ => {
                for &node in &self.nodes {
                    self.cluster.run(node)?;
                }
            }
        }
        let served = self.serves().await?;
        self.return_to_the_others().await?;
        Ok(served)
    }

    /// How long it took from what was last done until the cluster serves.
    async fn serves(&mut self) -> Result<Duration, ChaosError> {
        self.cluster.serves().await?;
        let served = self.done.elapsed();
        self.recorder.note(format!("serves after {served:?}"));
        Ok(served)
    }

    fn kill(&mut self) -> Result<(), ChaosError> {
        self.done = Instant::now();
        // One right after the other: no node lives long enough to notice.
        self.nodes.iter().try_for_each(|&node| self.cluster.kill(node))
    }

    /// Waits for the beginning of a snapshot, and kills then.
    async fn kill_in_snapshot(&mut self) -> Result<(), ChaosError> {
        let node = self.first();
        let folder = self.cluster.data(node).join("snapshots");
        let deadline = Instant::now() + LIMIT;
        while !has_temporary(&folder) {
            if Instant::now() > deadline {
                return Err(ChaosError::Missed(format!("node {node} writes no snapshot within {LIMIT:?}")));
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        self.kill()?;
        if !has_temporary(&folder) {
            self.recorder.note("the snapshot was just finished when the leader died");
        }
        Ok(())
    }

    /// Kills a follower, and waits until the others' logs no longer reach back to where it was.
    async fn leave_behind(&mut self) -> Result<(), ChaosError> {
        let node = self.first();
        // What it has may grow until it is killed; so it is read first, and the gap is made of what is purged after.
        self.kill()?;
        let others: Vec<_> = self.cluster.ids().into_iter().filter(|&other| other != node).collect();
        let mut had = 0;
        for &other in &others {
            had = had.max(self.cluster.metric(other, "atlas_raft_last_log").await?);
        }
        self.cluster
            .wait("the others forget what a follower lacks", async |cluster| {
                for &other in &others {
                    let purged = cluster.metric(other, "atlas_raft_purged").await.unwrap_or_default();
                    if purged <= had {
                        return None;
                    }
                }
                Some(())
            })
            .await
    }

    /// Lets all writes of a node fail; it must say why it ends.
    async fn fill_disk(&mut self) -> Result<(), ChaosError> {
        let node = self.first();
        let process = self.cluster.process(node)?;
        process.limit_files(0)?;
        let status = process.wait(LIMIT).await?;
        let messages = process.messages().join("\n");
        self.cluster.forget(node);
        // 27 is the system's "file too large", which is what a limit looks like.
        let is_clear = messages.contains("os error 27") || messages.contains("File too large");
        if status.code() != Some(1) || !is_clear {
            let expected = "with exit code 1, and have named the cause";
            return Err(ChaosError::EndedWrongly { node, expected, status: status.to_string(), messages });
        }
        self.recorder.note(format!("node {node} ended {:?} after its disk was full", self.done.elapsed()));
        Ok(())
    }

    async fn terminate(&mut self) -> Result<(), ChaosError> {
        let node = self.first();
        let process = self.cluster.process(node)?;
        process.terminate()?;
        let status = process.wait(LIMIT).await?;
        let messages = process.messages().join("\n");
        self.cluster.forget(node);
        if status.code() != Some(0) {
            let expected = "with exit code 0";
            return Err(ChaosError::EndedWrongly { node, expected, status: status.to_string(), messages });
        }
        Ok(())
    }

    /// Waits until the nodes that the fault was done to have what was executed by then.
    async fn return_to_the_others(&mut self) -> Result<(), ChaosError> {
        let mut goal = 0;
        for id in self.cluster.ids() {
            goal = goal.max(self.cluster.status(id, false).await.map_or(0, |status| status.applied));
        }
        let nodes = self.nodes.clone();
        self.cluster
            .wait("nodes that were away catch up", async |cluster| {
                for &node in &nodes {
                    if cluster.status(node, false).await.ok()?.applied < goal {
                        return None;
                    }
                }
                Some(())
            })
            .await?;
        if self.scenario == Scenario::FollowerBehind {
            let node = self.first();
            let installed = self.cluster.metric(node, "atlas_installs_total").await?;
            if installed == 0 {
                return Err(ChaosError::Missed(format!("node {node} caught up without a snapshot")));
            }
            self.recorder.note(format!("node {node} installed {installed} snapshots"));
        }
        Ok(())
    }
}

/// Whether a file is being written that will get its name once it is whole.
fn has_temporary(folder: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(folder) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".tmp"))
}
