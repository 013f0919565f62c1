//! What comes over the control socket is not trusted.

use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use dtwn_proto::{
    control::{Hello, LinkChange, NodeAction, Request, Response},
    frame,
};
use nix::unistd::geteuid;

use crate::{
    common::{Rig, wait_for},
    events::connect,
};

#[test]
fn another_user_is_refused() {
    assert!(geteuid().is_root(), "this test connects as another user than the session's: run it as root");
    let rig = Rig::unprivileged();
    let session = rig.up(&[]);
    // Root may open the socket, being root; the session still serves its own user only.
    let socket = rig.registry().join(format!("{}.sock", session.name));
    let mut stream = UnixStream::connect(&socket).unwrap();
    let hello = Hello { version: dtwn_proto::VERSION.into(), read_only: true };
    let _ = frame::write(&mut stream, &hello);
    let answer: Response = frame::read(&mut stream).unwrap();
    assert!(matches!(&answer, Response::Refused(why) if why.contains("another user")), "{answer:?}");
    assert!(frame::read::<Response>(&mut stream).is_err(), "the connection stays open");
    // An ordinary user cannot even reach it.
    let stranger = (rig.uid() + 1).to_string();
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid", &stranger, "--regid", &stranger, "--clear-groups", "--", "test", "-e"])
        .arg(&socket);
    assert_eq!(command.status().unwrap().code(), Some(1), "a stranger sees the socket");
    assert!(session.reaches("bs1", "mbs"));
}

#[test]
fn a_read_only_connection_changes_nothing() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let mut stream = connect(&session, true);
    let node = || "bs1".to_owned();
    let change = LinkChange { up: Some(false), ..LinkChange::default() };
    let requests = [
        Request::SetLink { from: node(), to: "mbs".into(), change },
        Request::Partition { groups: vec![vec![node()], vec!["mbs".into()]], one_way: false },
        Request::Heal,
        Request::Node { node: node(), action: NodeAction::Kill },
        Request::Enter { node: node() },
        Request::Capture { of: dtwn_proto::control::CaptureOf::Everything },
        Request::Stop { signal: None },
    ];
    for request in requests {
        frame::write(&mut stream, &request).unwrap();
        let answer: Response = frame::read(&mut stream).unwrap();
        assert!(
            matches!(&answer, Response::Refused(why) if why.contains("read-only")),
            "{request:?}: {answer:?}"
        );
    }
    frame::write(&mut stream, &Request::Status).unwrap();
    assert!(matches!(frame::read(&mut stream).unwrap(), Response::Status(_)));
    assert!(session.reaches("bs1", "mbs"));
    let changing = ["link_changed", "partitioned", "healed", "node_exited"];
    assert!(
        !session.events().iter().any(|event| changing.contains(&event["what"]["type"].as_str().unwrap()))
    );
}

#[test]
fn frames_that_make_no_sense_cost_only_their_connection() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let socket = rig.registry().join(format!("{}.sock", session.name));
    let hello = frame::encode(&Hello { version: dtwn_proto::VERSION.into(), read_only: false }).unwrap();
    let status = frame::encode(&Request::Status).unwrap();
    let with_length = |length: u32, body: &[u8]| [&length.to_be_bytes(), body].concat();
    let nested = [vec![0x91; 60_000], vec![0xc0]].concat();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a length alone", vec![0, 0]),
        ("4 GiB announced", with_length(u32::MAX, b"x")),
        ("more than a request may have", with_length(1 << 20, &vec![0; 1 << 20])),
        ("no MessagePack", with_length(4, &[0xc1; 4])),
        ("an empty frame", with_length(0, &[])),
        ("another message", frame::encode(&Response::Live).unwrap()),
        ("a number", frame::encode(&7_u64).unwrap()),
        ("deep nesting", with_length(nested.len() as u32, &nested)),
        ("a list of 2^32 promised", with_length(5, &[0xdd, 0xff, 0xff, 0xff, 0xff])),
        ("half a frame", status[..status.len() - 1].to_vec()),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for greeting in [&[][..], &hello[..]] {
        for (what, bytes) in &hostile {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // The session may hang up before all is written.
            let _ = stream.write_all(greeting).and_then(|()| stream.write_all(bytes));
            let _ = stream.shutdown(std::net::Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            loop {
                match frame::read::<Response>(&mut stream) {
                    Ok(_) => {}
                    Err(frame::FrameError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        panic!("{what}: the connection stays open")
                    }
                    Err(_) => break,
                }
            }
            assert!(session.is_alive(), "{what} ended the session");
        }
    }
    // Values out of range come from programs as well as from people.
    let mut stream = connect(&session, false);
    for (loss, delay_ms, rate_bps) in [
        (2.0, 0.0, 1e6),
        (f64::NAN, 0.0, 1e6),
        (-0.1, 0.0, 1e6),
        (0.0, -1.0, 1e6),
        (0.0, f64::NAN, 1e6),
        (0.0, 1e300, 1e6),
        (0.0, 0.0, -1.0),
        (0.0, 0.0, f64::NAN),
        (0.0, 0.0, f64::INFINITY),
    ] {
        let change = LinkChange {
            loss: Some(loss),
            delay_ms: Some(delay_ms),
            rate_bps: Some(rate_bps),
            ..LinkChange::default()
        };
        let what = format!("{change:?}");
        frame::write(&mut stream, &Request::SetLink { from: "bs1".into(), to: "mbs".into(), change })
            .unwrap();
        let answer: Response = frame::read(&mut stream).unwrap();
        assert!(matches!(answer, Response::Refused(_)), "{what}: {answer:?}");
    }
    let change = LinkChange { queue_bytes: Some(u64::MAX), ..LinkChange::default() };
    frame::write(&mut stream, &Request::SetLink { from: "bs1".into(), to: "mbs".into(), change }).unwrap();
    let _: Response = frame::read(&mut stream).unwrap();
    assert!(session.reaches("bs1", "mbs"));
    session.verb(&["heal"]).ok();
    session.down();
}

#[test]
fn connections_that_say_nothing_do_not_lock_others_out() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let socket = rig.registry().join(format!("{}.sock", session.name));
    let mut silent = Vec::new();
    for _ in 0..200 {
        // The listener's backlog may be shorter than this.
        let Ok(stream) = UnixStream::connect(&socket) else { break };
        silent.push(stream);
    }
    assert!(silent.len() > 64);
    wait_for("an answer", || rig.run(["status", &session.name]).status.success().then_some(()));
    drop(silent);
    session.down();
}

#[test]
fn another_version_is_told_so() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let socket = rig.registry().join(format!("{}.sock", session.name));
    let mut stream = UnixStream::connect(&socket).unwrap();
    frame::write(&mut stream, &Hello { version: "0.0.1".into(), read_only: false }).unwrap();
    let answer: Response = frame::read(&mut stream).unwrap();
    assert!(
        matches!(&answer, Response::Welcome { version, .. } if version == dtwn_proto::VERSION),
        "{answer:?}"
    );
    let _ = frame::write(&mut stream, &Request::Stop { signal: None });
    assert!(frame::read::<Response>(&mut stream).is_err());
    assert!(session.reaches("bs1", "mbs"), "a client of another version ended the session");
}
