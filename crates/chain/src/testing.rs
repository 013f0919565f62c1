//! Small chains for unit tests.

use std::sync::Arc;

use crate::crypto::Signer as _;
use crate::crypto::{PublicKey, StubSigner, StubVerifier};
use crate::genesis::{Genesis, Params, Registry, Validator};
use crate::tx::{Payload, SharedTransaction, Transaction};
use crate::types::ReplicaId;
use crate::vote::{Certificate, Statement, Vote};

pub(crate) fn key(id: u16) -> PublicKey {
    let mut key = [0x5a; 32];
    key[..2].copy_from_slice(&id.to_le_bytes());
    PublicKey(key)
}

pub(crate) fn genesis(count: u16) -> Genesis {
    let validators = (0..count).map(|id| Validator { key: key(id), coins: 100_000_000 }).collect();
    Genesis { name: "unit test".into(), validators, params: Params { producers: count, ..Params::default() } }
}

pub(crate) fn registry(count: u16) -> Arc<Registry> {
    Registry::with_verifier(genesis(count), Box::new(StubVerifier)).unwrap()
}

pub(crate) fn transaction(
    registry: &Registry,
    signer: u16,
    sequence: u64,
    payload: Payload,
) -> SharedTransaction {
    let key = StubSigner(key(signer));
    Arc::new(Transaction::sign(registry.chain(), ReplicaId(signer), &key, sequence, payload))
}

pub(crate) fn vote(registry: &Registry, signer: u16, statement: Statement) -> Vote {
    let signature = StubSigner(key(signer)).sign(&statement.signing_bytes(registry.chain()));
    Vote { statement, signer: ReplicaId(signer), signature }
}

pub(crate) fn certificate(registry: &Registry, signers: &[u16], statement: Statement) -> Arc<Certificate> {
    let signatures =
        signers.iter().map(|&id| (ReplicaId(id), vote(registry, id, statement).signature)).collect();
    Arc::new(Certificate { statement, signatures })
}
