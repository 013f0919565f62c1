//! The agreed start of a run's chain, from its topology and the nodes' keys alone: whoever has these, a node or a tool that
//! looks at a run afterwards, comes to the same genesis.

use dtwn_chain::{
    crypto::PublicKey,
    election::initial_coins,
    genesis::{Genesis, Params, Validator},
    types::MicroCoins,
};
use dtwn_model::{Plan, plan::Role};

use super::ChainError;

/// Micro-coins in a coin.
const MICRO: f64 = 1e6;

/// The genesis of a network's chain.
///
/// `ReplicaId(i)` is BS i in the topology's order. The initial coins follow Eq. 6 from the samples of the twins that each BS
/// holds when the run begins; where nobody has data, all BSs have the same.
///
/// # Errors
/// [`ChainError::NoKey`] when `verifying_keys` lacks a BS, [`ChainError::Chain`] when no chain can run from there.
pub fn genesis(plan: &Plan, verifying_keys: &[(String, [u8; 32])]) -> Result<Genesis, ChainError> {
    let settings = &plan.topology().chain;
    let mut samples = vec![0_u64; plan.bs_count()];
    for user in plan.users() {
        if let Some(bs) = plan.association.serving(user.id) {
            samples[bs.index()] += u64::from(user.samples);
        }
    }
    if samples.iter().all(|count| *count == 0) {
        samples.fill(1);
    }
    let coins = initial_coins(&samples, micro_coins(settings.coins))?;
    let stations = plan.nodes.iter().filter(|node| matches!(node.role, Role::Bs(_)));
    let validators = stations
        .zip(coins)
        .map(|(station, coins)| {
            let key = verifying_keys.iter().find(|(name, _)| *name == station.name).map(|(_, key)| *key);
            let key = key.ok_or_else(|| ChainError::NoKey(station.name.clone()))?;
            Ok(Validator { key: PublicKey(key), coins })
        })
        .collect::<Result<_, ChainError>>()?;
    let run = &plan.topology().run;
    let genesis = Genesis {
        name: format!("{} {}", run.name, run.seed),
        validators,
        params: Params {
            producers: u16::try_from(settings.producers).unwrap_or(u16::MAX),
            epoch_blocks: settings.epoch,
            award: micro_coins(settings.award),
            penalty: micro_coins(settings.penalty),
            max_block_bytes: u32::try_from(settings.max_block.get()).unwrap_or(u32::MAX),
        },
    };
    genesis.check()?;
    Ok(genesis)
}

/// Coins as the chain counts them.
fn micro_coins(coins: f64) -> MicroCoins {
    (coins * MICRO).round() as MicroCoins
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;

    fn plan(text: &str) -> Plan {
        let loaded = topology::parse("test.toml", text.to_owned(), &Overrides::default()).unwrap();
        Plan::new(&loaded.topology).unwrap()
    }

    fn keys(plan: &Plan) -> Vec<(String, [u8; 32])> {
        let key = |index: usize| {
            ed25519_dalek::SigningKey::from_bytes(&[index as u8 + 1; 32]).verifying_key().to_bytes()
        };
        plan.nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), key(index))).collect()
    }

    const FOUR: &str = r#"
        [chain]
        coins = 10
        [[bs]]
        id = "bs"
        count = 4
        ring = "100 m"
    "#;

    #[test]
    fn coins_follow_the_twins_data() {
        let users = r#"
            [[users]]
            id = "ug1"
            count = 3
            around = "bs2"
            samples = 100
            [[users]]
            id = "ug2"
            around = "bs4"
            samples = 100
        "#;
        let plan = plan(&format!("{FOUR}{users}"));
        let genesis = genesis(&plan, &keys(&plan)).unwrap();
        let coins: Vec<_> = genesis.validators.iter().map(|validator| validator.coins).collect();
        assert_eq!(coins, [0, 7_500_000, 0, 2_500_000]);
    }

    #[test]
    fn without_data_all_have_the_same_and_keys_and_seed_tell_chains_apart() {
        let one = plan(FOUR);
        let base = genesis(&one, &keys(&one)).unwrap();
        assert!(base.validators.iter().all(|validator| validator.coins == 2_500_000));
        let other = plan(&format!("[run]\nseed = 9\n{FOUR}"));
        assert_ne!(genesis(&other, &keys(&other)).unwrap().chain_id(), base.chain_id());
        let mut lacking = keys(&one);
        lacking.retain(|(name, _)| name != "bs3");
        let refused = genesis(&one, &lacking).unwrap_err().to_string();
        assert!(refused.contains("bs3"), "{refused}");
    }
}
