//! A thousand reconnects, in a process of their own so that its footprint can be watched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use common::{name, receive, stats, until, until_connected};
use dtwn_node::bus::{Delivery, Message, Timing};
use proxy::through_proxy;
use std::time::Duration;

const RECONNECTS: u64 = 1_000;

/// Descriptors, threads and resident kilobytes of this process.
fn footprint() -> (usize, usize, usize) {
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (
        entries("/proc/self/fd"),
        entries("/proc/self/task"),
        resident.trim().trim_end_matches(" kB").parse().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reconnects_leave_nothing_behind() {
    // A connection that breaks at once is redialled after the longest pause: a short one, or a thousand take minutes.
    let timing = Timing { redial_max: Duration::from_millis(5), ..Timing::default() };
    let ((a, _from_b), (_b, mut from_a), proxy) = through_proxy(timing).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut early = None;
    let mut index = 0u64;
    while stats(&a, "b").control.connects < RECONNECTS {
        let ticket = a.send(&name("b"), Message::control(vec![index as u8; 50_000])).unwrap();
        assert_eq!(receive(&mut from_a).await.body, vec![index as u8; 50_000]);
        assert_eq!(ticket.await, Delivery::Delivered);
        index += 1;
        if early.is_none() && stats(&a, "b").control.connects > RECONNECTS / 10 {
            until_connected(&a, "b").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            early = Some((footprint(), tasks()));
        }
        let connects = stats(&a, "b").control.connects;
        proxy.cut();
        until("a new connection", || stats(&a, "b").control.connects > connects).await;
    }
    until_connected(&a, "b").await;
    let ((fds, threads, resident), tasks_early) = early.unwrap();
    let mut latest = (footprint(), tasks());
    let settled = |latest: &((usize, usize, usize), usize)| {
        latest.0.0 <= fds + 3 && latest.0.1 <= threads && latest.1 <= tasks_early + 3
    };
    until("a footprint as before", || {
        latest = (footprint(), tasks());
        settled(&latest)
    })
    .await;
    println!(
        "after 100: {fds} fds, {threads} threads, {resident} kB, {tasks_early} tasks; after 1,000: {latest:?}"
    );
    assert!(latest.0.2 <= resident + 16_384, "{resident} kB grew to {} kB", latest.0.2);
}
