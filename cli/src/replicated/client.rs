//! `atlas-smr client`: single operations, or many.

use std::sync::Arc;

use atlas_smr_raft::client::{Client, Consistency};
use atlas_smr_raft::types::Answer;
use bytes::Bytes;

use super::args::{ClientArgs, Operation};
use super::load::{self, Progress};
use super::{asked_to_end, block_on};
use crate::error::CliError;
use crate::print;
use crate::served::{Reply, Request};

/// True if the answer is what was hoped for.
pub fn run(args: &ClientArgs) -> Result<bool, CliError> {
    block_on(async {
        tokio::select! {
            outcome = ask(args) => outcome,
            asked = asked_to_end() => asked.map(|()| false),
        }
    })
}

async fn ask(args: &ClientArgs) -> Result<bool, CliError> {
    let config = args.reach.config()?;
    if let Operation::Bench { load, operations, json } = &args.operation {
        let progress = Arc::new(Progress::new(*operations));
        let outcome = load::run(load, &config, &progress).await?;
        print(&if *json { outcome.json()? } else { outcome.text() })?;
        return Ok(outcome.failed == 0);
    }
    let client = Client::new(config)?;
    let key = |key: &String| key.clone().into_bytes();
    let reply = match &args.operation {
        Operation::Get { key: name, stale } => {
            let consistency = if *stale { Consistency::Stale } else { Consistency::Linearizable };
            let request = Request::Get { key: key(name) }.encode();
            reply(client.read(vec![request], consistency).await?)?
        }
        Operation::Put { key: name, value } => {
            execute(&client, Request::Put { key: key(name), value: key(value) }).await?
        }
        Operation::Delete { key: name } => execute(&client, Request::Delete { key: key(name) }).await?,
        Operation::Transfer { from, to, amount, work_ns } => {
            let (from, to) = (key(from), key(to));
            execute(&client, Request::Transfer { from, to, amount: *amount, work_ns: *work_ns }).await?
        }
        Operation::Bench { .. } => return Ok(false),
    };
    show(&reply)
}

async fn execute(client: &Client, request: Request) -> Result<Reply, CliError> {
    reply(client.execute(vec![request.encode()]).await?)
}

/// The reply to the one operation that was asked for.
fn reply(answers: Vec<Answer>) -> Result<Reply, CliError> {
    match answers.first() {
        Some(Answer::Done(bytes)) => decode(bytes),
        other => Err(CliError::Answer(format!("{other:?}"))),
    }
}

fn decode(bytes: &Bytes) -> Result<Reply, CliError> {
    Reply::decode(bytes).ok_or_else(|| CliError::Answer("the nodes serve another application".to_owned()))
}

fn show(reply: &Reply) -> Result<bool, CliError> {
    let (text, good) = match reply {
        Reply::Done => ("done".to_owned(), true),
        Reply::Value(Some(value)) => (String::from_utf8_lossy(value).into_owned(), true),
        Reply::Value(None) => return Ok(false),
        Reply::Transferred { from, to } => (format!("{from} {to}"), true),
        Reply::TooLittle { balance } => (format!("too little: {balance}"), false),
        Reply::NotANumber => ("not a number, or too large a one".to_owned(), false),
        Reply::ReadOnly => ("not a read".to_owned(), false),
    };
    print(&text)?;
    Ok(good)
}
