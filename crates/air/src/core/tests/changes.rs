//! Live changes, and what a specification must satisfy.

use std::time::Duration;

use super::*;

#[test]
fn patches_are_all_or_none() {
    let mut world = World::star(1, &rate(8e6));
    let good = (LinkId(0), LinkPatch::rate(1e6));
    let bad = (LinkId(1), LinkPatch { duplicate: Some(f64::NAN), ..LinkPatch::default() });
    let error = world.core.patch_links(&[good.clone(), bad], 0).unwrap_err();
    assert_eq!(error.to_string(), "link `l1`: duplicate = NaN; must be a probability from 0 to 1");
    assert!(world.core.patch_links(&[good.clone(), (LinkId(2), LinkPatch::default())], 0).is_err());
    assert_eq!(world.link(0).rate_bps, Some(8e6));
    world.core.patch_links(&[good], 0).unwrap();
    let mut changed = rate(8e6);
    changed.rate_bps = Some(1e6);
    assert_eq!(world.core.links[0].properties, changed);
    assert_eq!(world.core.links[1].properties, rate(8e6));
    let fifo = LinkPatch { discipline: Some(Discipline::Fifo), ..LinkPatch::default() };
    world.patch(0, 1, fifo);
    world.patch(0, 1, LinkPatch { queue_bytes: Some(QueueBytes::Auto), ..LinkPatch::default() });
    let queue = Queue { bytes: QueueBytes::Auto, discipline: Discipline::Fifo };
    assert_eq!(world.core.links[1].properties, LinkProperties { queue, ..rate(8e6) });
}

#[test]
fn specifications_are_checked() {
    let refused = |change: &dyn Fn(&mut AirSpec)| {
        let mut spec = star(1, 1, &LinkProperties::default());
        change(&mut spec);
        Core::new(spec, 1500, 1 << 20).unwrap_err().to_string()
    };
    assert_eq!(refused(&|s| s.links[1].name = "l0".to_owned()), "link name `l0` is given twice");
    let loss = refused(&|s| s.links[0].properties.loss = Loss::Bernoulli(1.5));
    assert_eq!(loss, "link `l0`: loss = 1.5; must be a probability from 0 to 1");
    let rate = refused(&|s| s.links[0].properties.rate_bps = Some(-1.0));
    assert_eq!(rate, "link `l0`: rate_bps = -1; must be a number from 0 to 1e12 bit/s");
    assert!(refused(&|s| s.links[0].properties.rate_bps = Some(f64::NAN)).contains("rate_bps = NaN"));
    assert!(refused(&|s| s.links[0].properties.delay = Duration::from_secs(4000)).contains("at most 3600 s"));
    let arq = Some(Arq { attempts_max: 0, turnaround: Duration::ZERO });
    assert!(refused(&|s| s.links[0].properties.arq = arq).contains("at least 1"));
    let small = Core::new(star(1, 1, &LinkProperties::default()), 1500, 3000).unwrap_err();
    assert_eq!(small.to_string(), "3000 bytes of packet memory; at least 3002 for an MTU of 1500");
}

/// The loss pattern of a link, as the ports of what arrives, when other things are or are not going on.
fn survivors(change: impl Fn(&mut World, u64)) -> Vec<u16> {
    let properties = LinkProperties { loss: Loss::Bernoulli(0.3), ..rate(8e6) };
    let mut world = World::star(2, &properties);
    for i in 0..400u64 {
        change(&mut world, i);
        world.send(i * 2 * MS, 1, 0, i as u16, 1000);
    }
    world.run(10_000 * MS);
    let mut ports: Vec<u16> = world
        .out
        .iter()
        .filter(|(_, _, p)| p[15] == 2)
        .map(|(_, _, p)| u16::from_be_bytes([p[20], p[21]]))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn changes_leave_other_properties_and_other_links_alone() {
    let plain = survivors(|_, _| {});
    assert!((200..360).contains(&plain.len()), "{}", plain.len());
    let patched = |patch: LinkPatch| {
        survivors(move |world, i| {
            if i == 100 {
                world.patch(i * 2 * MS, 0, patch.clone());
            }
        })
    };
    assert_eq!(plain, patched(LinkPatch::rate(6e6)));
    assert_eq!(plain, patched(LinkPatch { delay: Some(Duration::from_millis(7)), ..LinkPatch::default() }));
    assert_eq!(plain, patched(LinkPatch { duplicate: Some(0.5), ..LinkPatch::default() }));
    assert_eq!(plain, patched(LinkPatch { corrupt: Some(0.0), reorder: Some(0.4), ..LinkPatch::default() }));
    assert_ne!(plain, patched(LinkPatch { loss: Some(Loss::Bernoulli(0.1)), ..LinkPatch::default() }));
    // Traffic and changes on another link.
    let busy = survivors(|world, i| {
        world.send(i * 2 * MS, 2, 1, 7, 300);
        world.patch(i * 2 * MS, 2, LinkPatch { loss: Some(Loss::Bernoulli(0.7)), ..LinkPatch::default() });
    });
    assert_eq!(plain, busy);
}
