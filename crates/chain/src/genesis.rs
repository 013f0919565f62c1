//! What all replicas agree on before the first block, and the checks of signatures that follow from it.

use std::sync::Arc;

use crate::codec::{Encode, VERSION, encoded_fields, put_sequence};
use crate::crypto::{Check, Ed25519Verifier, PublicKey, Verifier};
use crate::election::{MIN_PRODUCERS, ProducerSet};
use crate::error::{Error, Result};
use crate::tx::Transaction;
use crate::types::{Digest, MicroCoins, ReplicaId};
use crate::vote::{Certificate, Evidence, MAX_PRODUCERS, Vote};

/// A base station at genesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// Its signing key.
    pub key: PublicKey,
    /// Its initial coins, see [`crate::election::initial_coins`].
    pub coins: MicroCoins,
}
encoded_fields!(Validator { key, coins });

/// Constants of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Producers per epoch, M_p, at least 4.
    pub producers: u16,
    /// Blocks per epoch, at least 1; the last one is the epoch's boundary block.
    pub epoch_blocks: u64,
    /// Coins for a training model that a quorum attested.
    pub award: MicroCoins,
    /// Coins that an offence costs, or all that the offender has left.
    pub penalty: MicroCoins,
    /// Most bytes that the transactions of a block may take.
    pub max_block_bytes: u32,
}
encoded_fields!(Params { producers, epoch_blocks, award, penalty, max_block_bytes });

impl Default for Params {
    fn default() -> Self {
        Self {
            producers: 4,
            epoch_blocks: 100,
            award: 1_000_000,
            penalty: 10_000_000,
            max_block_bytes: 262_144,
        }
    }
}

/// The agreed start of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// Tells chains with equal members apart, for instance the run's name and seed.
    pub name: String,
    /// The base stations; `ReplicaId(i)` is `validators[i]`.
    pub validators: Vec<Validator>,
    /// Constants.
    pub params: Params,
}

/// Largest `max_block_bytes`: a proposal with its certificates must fit into [`crate::message::MAX_MESSAGE_BYTES`].
pub const MAX_BLOCK_BYTES: u32 = 4 << 20;

impl Genesis {
    /// Identifies the chain; part of everything signed.
    #[must_use]
    pub fn chain_id(&self) -> Digest {
        let mut bytes = vec![VERSION];
        crate::codec::put_bytes(&mut bytes, self.name.as_bytes());
        put_sequence(&mut bytes, &self.validators);
        self.params.encode(&mut bytes);
        Digest::in_domain("genesis", &bytes)
    }

    /// Checks that a chain can run from here.
    ///
    /// # Errors
    /// [`Error::Config`] naming what is wrong.
    pub fn check(&self) -> Result<()> {
        let producers = usize::from(self.params.producers);
        let problem = if !(MIN_PRODUCERS..=MAX_PRODUCERS).contains(&producers) {
            format!("{producers} producers; between {MIN_PRODUCERS} and {MAX_PRODUCERS} are possible")
        } else if self.validators.len() < producers {
            format!("{} base stations cannot fill {producers} producer seats", self.validators.len())
        } else if self.validators.len() > usize::from(u16::MAX) {
            format!("{} base stations; at most {}", self.validators.len(), u16::MAX)
        } else if self.params.epoch_blocks == 0 {
            "an epoch needs at least one block".into()
        } else if self.params.max_block_bytes == 0 || self.params.max_block_bytes > MAX_BLOCK_BYTES {
            format!("max_block_bytes {}; between 1 and {MAX_BLOCK_BYTES}", self.params.max_block_bytes)
        } else if self.validators.iter().try_fold(0u64, |sum, v| sum.checked_add(v.coins)).is_none() {
            "initial coins do not fit in 64 bits".into()
        } else {
            let mut keys: Vec<_> = self.validators.iter().map(|validator| validator.key).collect();
            keys.sort_unstable();
            match keys.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => format!("two base stations have the key {:?}", pair[0]),
                None => return Ok(()),
            }
        };
        Err(Error::Config(problem))
    }
}

/// A genesis with a verifier for its keys: every signature check of the chain.
pub struct Registry {
    genesis: Genesis,
    chain: Digest,
    verifier: Box<dyn Verifier>,
}

impl Registry {
    /// A registry that checks Ed25519 signatures.
    ///
    /// # Errors
    /// [`Error::Config`] when the genesis or a key is not valid.
    pub fn new(genesis: Genesis) -> Result<Arc<Self>> {
        let verifier = Ed25519Verifier::new(genesis.validators.iter().map(|validator| validator.key))?;
        Self::with_verifier(genesis, Box::new(verifier))
    }

    pub(crate) fn with_verifier(genesis: Genesis, verifier: Box<dyn Verifier>) -> Result<Arc<Self>> {
        genesis.check()?;
        Ok(Arc::new(Self { chain: genesis.chain_id(), genesis, verifier }))
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The chain's constants.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.genesis.params
    }

    /// The chain's identifier.
    #[must_use]
    pub fn chain(&self) -> &Digest {
        &self.chain
    }

    /// A replica's key; `None` for a stranger.
    #[must_use]
    pub fn key(&self, id: ReplicaId) -> Option<PublicKey> {
        self.genesis.validators.get(id.index()).map(|validator| validator.key)
    }

    /// Checks a vote's signature.
    #[must_use]
    pub fn verify_vote(&self, vote: &Vote) -> bool {
        let message = vote.statement.signing_bytes(&self.chain);
        self.key(vote.signer).is_some_and(|key| self.verifier.verify(&key, &message, &vote.signature))
    }

    /// Checks the signatures of both votes of an evidence.
    #[must_use]
    pub fn verify_evidence(&self, evidence: &Evidence) -> bool {
        self.verify_vote(&evidence.first) && self.verify_vote(&evidence.second)
    }

    /// Checks the signatures of transactions in one batch; true when all are valid.
    #[must_use]
    pub fn verify_transactions<'a>(&self, transactions: impl IntoIterator<Item = &'a Transaction>) -> bool {
        let mut checks = Vec::new();
        for transaction in transactions {
            let Some(key) = self.key(transaction.signer) else { return false };
            checks.push(transaction.check(&self.chain, key));
        }
        self.verifier.verify_all(&checks)
    }

    /// Checks a certificate against the producers of its epoch, `quorum` of whom must have signed.
    ///
    /// # Errors
    /// [`Error::Certificate`] naming what is wrong.
    pub fn verify_certificate(
        &self,
        certificate: &Certificate,
        set: &ProducerSet,
        quorum: usize,
    ) -> Result<()> {
        let (epoch, _) = certificate.statement.round();
        if epoch != set.epoch {
            return Err(certificate.error(format!("checked against the producers of epoch {}", set.epoch)));
        }
        certificate.check_shape(&set.members, quorum)?;
        let message = certificate.statement.signing_bytes(&self.chain);
        let mut checks = Vec::with_capacity(certificate.signatures.len());
        for (signer, signature) in &certificate.signatures {
            let key = self.key(*signer).ok_or_else(|| certificate.error(format!("{signer} is unknown")))?;
            checks.push(Check { key, message: message.clone(), signature: *signature });
        }
        if self.verifier.verify_all(&checks) {
            return Ok(());
        }
        Err(certificate.error("a signature is not valid".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genesis(count: u8) -> Genesis {
        let validators = (0..count).map(|byte| Validator { key: PublicKey([byte; 32]), coins: 10 }).collect();
        Genesis { name: "test".into(), validators, params: Params::default() }
    }

    #[test]
    fn impossible_settings_are_named() {
        assert_eq!(genesis(4).check(), Ok(()));
        let broken = |change: fn(&mut Genesis)| {
            let mut genesis = genesis(4);
            change(&mut genesis);
            genesis.check().unwrap_err().to_string()
        };
        assert!(broken(|g| g.params.producers = 3).contains("3 producers"));
        assert!(broken(|g| g.params.producers = 5).contains("cannot fill"));
        assert!(broken(|g| g.params.epoch_blocks = 0).contains("at least one block"));
        assert!(broken(|g| g.params.max_block_bytes = 0).contains("max_block_bytes"));
        assert!(broken(|g| g.validators[0].coins = u64::MAX).contains("64 bits"));
        assert!(broken(|g| g.validators[0].key = g.validators[1].key).contains("two base stations"));
    }

    #[test]
    fn every_part_of_the_genesis_is_in_the_chain_id() {
        let base = genesis(4).chain_id();
        for change in [
            (|g: &mut Genesis| g.name.push('x')) as fn(&mut Genesis),
            |g| g.validators[2].coins += 1,
            |g| g.validators[2].key.0[0] ^= 0x80,
            |g| g.params.epoch_blocks += 1,
        ] {
            let mut changed = genesis(4);
            change(&mut changed);
            assert_ne!(changed.chain_id(), base);
        }
    }
}
