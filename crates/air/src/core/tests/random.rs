//! Random runs: conservation, repeatability, bounds.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// One step of a random run.
#[derive(Clone, Debug)]
enum Action {
    Send { from: u32, to: u32, port: u16, len: usize },
    Patch { link: u32, patch: LinkPatch },
    Attach { station: u32, parent: u32 },
    Override { from: u32, to: u32, set: bool },
    Block { from: u16, to: u16 },
    Heal,
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::None),
        (0.0..0.5).prop_map(Loss::Bernoulli),
        Just(Loss::GilbertElliott { p: 0.1, r: 0.3, loss_good: 0.01, loss_bad: 0.9 }),
    ]
}

fn patch() -> impl Strategy<Value = LinkPatch> {
    let rate = prop::option::of(prop_oneof![Just(None), Just(Some(0.0)), (1e5..1e8).prop_map(Some)]);
    let times = (prop::option::of(0u64..20), prop::option::of(0u64..10));
    let chances = (prop::option::of(0.0..0.5), prop::option::of(0.0..0.5), prop::option::of(0.0..0.5));
    let queue = (prop::option::of(500u64..20_000), prop::option::of(any::<bool>()));
    let arq = prop::option::of(prop::option::of(1u8..5));
    (rate, times, prop::option::of(loss()), chances, queue, arq, prop::option::weighted(0.2, any::<bool>()))
        .prop_map(
            |(rate_bps, (delay, jitter), loss, (duplicate, corrupt, reorder), (queue, fifo), arq, up)| {
                LinkPatch {
                    rate_bps,
                    delay: delay.map(Duration::from_millis),
                    jitter: jitter.map(Duration::from_millis),
                    loss,
                    duplicate,
                    corrupt,
                    reorder,
                    arq: arq.map(|a| {
                        a.map(|attempts_max| Arq { attempts_max, turnaround: Duration::from_micros(50) })
                    }),
                    queue_bytes: queue.map(QueueBytes::Bytes),
                    discipline: fifo.map(|fifo| if fifo { Discipline::Fifo } else { Discipline::Drr }),
                    up,
                }
            },
        )
}

fn action() -> impl Strategy<Value = Action> {
    let send = || {
        (0u32..5, 0u32..5, 0u16..4, 28usize..1500).prop_map(|(from, to, port, len)| Action::Send {
            from,
            to,
            port,
            len,
        })
    };
    prop_oneof![
        12 => send(),
        2 => (0u32..8, patch()).prop_map(|(link, patch)| Action::Patch { link, patch }),
        1 => (1u32..5, 0u32..5).prop_map(|(station, parent)| Action::Attach { station, parent }),
        1 => (0u32..5, 0u32..5, any::<bool>()).prop_map(|(from, to, set)| Action::Override { from, to, set }),
        1 => (0u16..5, 0u16..5).prop_map(|(from, to)| Action::Block { from, to }),
        1 => Just(Action::Heal),
    ]
}

impl World {
    fn act(&mut self, now: u64, action: &Action) {
        let core = &mut self.core;
        match action.clone() {
            Action::Send { from, to, port, len } => self.send(now, from, to, port, len),
            Action::Patch { link, patch } => self.patch(now, link, patch),
            // Loops are refused and change nothing.
            Action::Attach { station, parent } => {
                let _ = core.attach(StationId(station), StationId(parent), now);
            }
            Action::Override { from, to, set: true } => {
                let link = LinkProperties { delay: Duration::from_millis(3), ..rate(1e6) };
                core.set_override(StationId(from), StationId(to), link, now).unwrap();
            }
            Action::Override { from, to, set: false } => {
                core.clear_override(StationId(from), StationId(to), now).unwrap();
            }
            Action::Block { from, to } => core.block(&[(EndpointId(from), EndpointId(to))], now).unwrap(),
            Action::Heal => core.heal(now),
        }
        self.collect();
    }

    /// Checks conservation of packets, at each link and over all.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let snapshot = self.core.snapshot(self.core.now);
        let overrides = snapshot.overrides.iter().map(|o| &o.meters);
        for link in snapshot.links.iter().chain(overrides) {
            prop_assert_eq!(
                link.offered.packets + link.duplicated,
                link.delivered.packets + link.drops.total() + link.in_flight
            );
            prop_assert!(link.queue_packets <= link.in_flight);
            prop_assert!(link.backlogged_bytes <= link.backlogged_capacity_bytes * (1.0 + 1e-9) + 1.0);
        }
        let totals = snapshot.totals;
        prop_assert_eq!(
            totals.read.packets + totals.duplicated,
            totals.written.packets + totals.drops.total() + totals.in_flight
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to it, the medium loses no packet without counting it, never runs time backwards, empties when
    /// all links serve, and does the same again with the same seed, however late it is called.
    #[test]
    fn packets_are_conserved_and_runs_repeat(
        seed: u64,
        steps in prop::collection::vec((0u64..3 * MS, action()), 1..200),
    ) {
        let mut first = World::new(star(seed, 4, &rate(5e6)));
        let mut second = World::new(star(seed, 4, &rate(5e6)));
        let mut now = 0;
        for (gap, action) in &steps {
            now += gap;
            first.run(now);
            first.act(now, action);
            first.check()?;
            second.act(now, action);
        }
        for world in [&mut first, &mut second] {
            for link in 0..8 {
                let serve = LinkPatch { rate_bps: Some(Some(1e6)), up: Some(true), ..LinkPatch::default() };
                world.patch(now, link, serve);
            }
        }
        first.run(now + 100_000 * MS);
        second.jump(now + 100_000 * MS);
        prop_assert!(first.times().is_sorted());
        prop_assert_eq!(&first.out, &second.out);
        first.check()?;
        prop_assert_eq!(first.totals().in_flight, 0);
        prop_assert_eq!(first.core.packets.len(), 0);
    }

    /// With a fixed bound, the queue never holds more than it.
    #[test]
    fn the_queue_bound_is_never_exceeded(
        bytes in 200u64..20_000,
        sends in prop::collection::vec((0u64..2 * MS, 0u16..6, 28usize..1500), 1..200),
    ) {
        let mut properties = rate(4e6);
        properties.queue.bytes = QueueBytes::Bytes(bytes);
        let mut world = World::star(1, &properties);
        let mut now = 0;
        for (gap, port, len) in sends {
            now += gap;
            world.run(now);
            world.send(now, 1, 0, port, len);
            prop_assert!(world.link(0).queue_bytes <= bytes);
        }
        prop_assert!(world.link(0).queue_bytes_peak <= bytes);
    }
}
