//! `dtwn chain show`: one block, with every transaction decoded.

use dtwn_chain::{
    block::SharedBlock,
    store::{ChainView, Store},
    tx::Transaction,
    types::{Height, ReplicaId},
    vote::SharedCertificate,
};
use serde_json::{Value, json};

use super::{choose, describe, find, signers};
use crate::{
    chain::RunChain,
    cli::ChainShowArgs,
    commands::{print_json, print_line},
    error::{Error, Result},
    exit,
};

/// Fewest digits that name a block by its digest; fewer are read as a height.
const DIGITS_MIN: usize = 8;
/// Longest content of a transaction shown to a person, in hexadecimal digits.
const CONTENT_MAX: usize = 64;
/// Fields of payloads that hold a BS's number.
const REPLICA_FIELDS: [&str; 3] = ["owner", "candidate", "signer"];

/// Shows the block with a height or a digest.
///
/// # Errors
/// When there is no such block, or the chain cannot be read.
pub fn run(args: &ChainShowArgs) -> Result<u8> {
    let chain = find(Some(&args.run))?;
    let (node, store) = choose(&chain, args.node.as_deref())?;
    let view = store.view()?;
    let (block, certificate) = block_of(&store, &view, &node, &args.block)?;
    let transactions: Vec<Value> =
        block.transactions().iter().map(|tx| transaction(&chain, tx)).collect::<Result<_>>()?;
    let mut value = describe(&chain, &block, certificate.as_ref());
    value["node"] = json!(node);
    value["state"] = json!(block.header().state.to_hex());
    value["transactions"] = json!(transactions);
    match args.json {
        true => print_json(&value)?,
        false => print(&chain, &block, certificate.as_ref(), &transactions)?,
    }
    Ok(exit::OK)
}

fn block_of(
    store: &Store,
    view: &ChainView,
    node: &str,
    wanted: &str,
) -> Result<(SharedBlock, Option<SharedCertificate>)> {
    let height = match wanted.parse::<Height>() {
        Ok(height) if wanted.len() < DIGITS_MIN => height,
        _ => height_of(view, wanted)?,
    };
    view.committed(height)?.ok_or_else(|| {
        Error::Refused(format!("{node} has no block {height}: its heights are 1 to {}", store.height()))
    })
}

/// The height of the block whose digest begins with these digits.
fn height_of(view: &ChainView, digits: &str) -> Result<Height> {
    let wanted = digits.to_ascii_lowercase();
    if wanted.len() < DIGITS_MIN || wanted.len() > 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(Error::Usage {
            what: format!("`{digits}` names no block"),
            help: format!("write a height, or {DIGITS_MIN} to 64 hexadecimal digits of a digest"),
        });
    }
    let found: Vec<Height> = (1..)
        .zip(view.digests()?)
        .filter(|(_, digest)| digest.is_some_and(|digest| digest.to_hex().starts_with(&wanted)))
        .map(|(height, _)| height)
        .collect();
    match found.as_slice() {
        [height] => Ok(*height),
        [] => Err(Error::Refused(format!("no finalized block's digest begins with {wanted}"))),
        _ => Err(Error::Refused(format!("the digests of {} blocks begin with {wanted}", found.len()))),
    }
}

fn transaction(chain: &RunChain, transaction: &Transaction) -> Result<Value> {
    let payload = serde_json::to_value(&transaction.payload).map_err(|error| Error::Output(error.into()))?;
    Ok(json!({
        "id": transaction.id(chain.registry.chain()).to_hex(),
        "signer": chain.name_of(transaction.signer),
        "sequence": transaction.sequence,
        "bytes": transaction.encoded_len(),
        "payload": with_names(chain, payload),
    }))
}

/// The same value with the names of BSs instead of their numbers.
fn with_names(chain: &RunChain, value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| {
                let id = value.as_u64().and_then(|id| u16::try_from(id).ok());
                let value = match id {
                    Some(id) if REPLICA_FIELDS.contains(&key.as_str()) => json!(chain.name_of(ReplicaId(id))),
                    _ => with_names(chain, value),
                };
                (key, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| with_names(chain, item)).collect(),
        other => other,
    }
}

fn print(
    chain: &RunChain,
    block: &SharedBlock,
    certificate: Option<&SharedCertificate>,
    transactions: &[Value],
) -> Result<()> {
    let header = block.header();
    let certified = certificate.map_or("the certificate of a later block".to_owned(), |held| {
        let (epoch, view) = held.statement.round();
        format!("{}, in epoch {epoch}, view {view}", signers(chain, held).join(" "))
    });
    let fields = [
        ("height", header.height.to_string()),
        ("digest", block.digest().to_hex()),
        ("parent", header.parent.to_hex()),
        ("epoch, view", format!("{}, {}", header.epoch, header.view)),
        ("leader", chain.name_of(header.leader)),
        ("state", header.state.to_hex()),
        ("finalized by", certified),
        ("transactions", format!("{} ({} B)", transactions.len(), block.body_bytes())),
    ];
    for (name, text) in fields {
        print_line(&format!("{name:<13} {text}"))?;
    }
    for (number, transaction) in transactions.iter().enumerate() {
        let field = |name: &str| plain(&transaction[name]);
        print_line(&format!(
            "{:>5}  {:<8} {:>6}  {:>6} B  {}",
            number + 1,
            field("signer"),
            field("sequence"),
            field("bytes"),
            words(&transaction["payload"])
        ))?;
    }
    Ok(())
}

/// A payload in words: its kind, then its fields.
fn words(payload: &Value) -> String {
    let mut text = plain(&payload["kind"]);
    for (key, value) in payload.as_object().into_iter().flatten().filter(|(key, _)| *key != "kind") {
        match value.as_object() {
            Some(inner) => {
                inner.iter().for_each(|(key, value)| text.push_str(&format!(" {key}={}", short(value))));
            }
            None => text.push_str(&format!(" {key}={}", short(value))),
        }
    }
    text
}

fn short(value: &Value) -> String {
    let text = plain(value);
    match text.char_indices().nth(CONTENT_MAX) {
        Some((end, _)) => format!("{}… ({} digits)", &text[..end], text.len()),
        None => text,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
