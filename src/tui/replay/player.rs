//! The player: turns time that passes into events for the model, on a thread of its own.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender},
    time::{Duration, Instant},
};

use super::{News, Order, SPEEDS, Tape, Target};
use crate::{error::Result, recording::Events, tui::model::Msg};

/// Events read or played between two looks at the orders.
const BATCH: usize = 1024;
/// How often the position is told while the replay goes on.
const TICK: Duration = Duration::from_millis(250);
/// How often a file that may still grow is looked at.
const GROWTH_PERIOD: Duration = Duration::from_millis(300);
/// The usual speeds.
const STEPS: [f64; 10] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Status {
    /// Whether it goes on.
    pub playing: bool,
    /// Emulated seconds a wall second.
    pub speed: f64,
    /// Events that have happened.
    pub position: usize,
    /// Events recorded.
    pub events: usize,
    /// Emulated time, nanoseconds.
    pub now_ns: i64,
    /// Of the first event.
    pub first_ns: i64,
    /// Of the last.
    pub last_ns: i64,
    /// What kind of end the recording has.
    pub end: End,
}

/// What kind of end a recording has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// It is still being read.
    #[default]
    Loading,
    /// The run is over.
    Over,
    /// The run goes on, and more is recorded.
    Growing,
    /// The recording stops before the run was over.
    CutOff,
}

/// Emulated time that passes while the replay goes on.
#[derive(Debug, Clone, Copy)]
struct Clock {
    playing: bool,
    speed: f64,
    /// The emulated time at `since`.
    at_ns: f64,
    since: Instant,
}

impl Clock {
    fn now_ns(&self, now: Instant) -> f64 {
        let passed = if self.playing { now.saturating_duration_since(self.since).as_secs_f64() } else { 0.0 };
        self.at_ns + passed * self.speed * 1e9
    }

    fn set(&mut self, at_ns: f64, now: Instant) {
        (self.at_ns, self.since) = (at_ns, now);
    }

    fn turn(&mut self, playing: bool, now: Instant) {
        self.set(self.now_ns(now), now);
        self.playing = playing;
    }

    fn speed(&mut self, speed: f64, now: Instant) {
        self.set(self.now_ns(now), now);
        self.speed = speed;
    }
}

/// Plays a [`Tape`].
pub struct Player {
    tape: Tape,
    clock: Clock,
    position: usize,
    /// A reader that stands at `position`.
    events: Option<Events>,
    loaded: bool,
    /// A moment to go to, once all that is recorded has been read: it may lie in what has not.
    awaited: Option<Target>,
    is_live: Box<dyn FnMut() -> bool + Send>,
    growing: bool,
    /// What is to be told.
    news: Vec<Msg>,
}

impl Player {
    /// A player that goes on at `speed` from a moment, or from the start; `is_live` says whether the run is still recorded.
    pub fn new(
        tape: Tape,
        speed: f64,
        from: Option<Target>,
        is_live: Box<dyn FnMut() -> bool + Send>,
    ) -> Self {
        Self {
            tape,
            clock: Clock { playing: true, speed, at_ns: 0.0, since: Instant::now() },
            position: 0,
            events: None,
            loaded: false,
            awaited: from,
            is_live,
            growing: true,
            news: Vec::new(),
        }
    }

    /// Plays until nobody listens any more.
    pub fn run(mut self, orders: &Receiver<Order>, messages: &SyncSender<Msg>) {
        let mut told = None;
        let mut looked = Instant::now();
        loop {
            let order = match orders.recv_timeout(self.patience(Instant::now())) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = Instant::now();
            let result = self.load(&mut looked, now).and_then(|()| match order {
                Some(order) => self.obey(order, now),
                None => Ok(()),
            });
            let result = result.and_then(|()| self.arrive(now)).and_then(|()| self.play(now));
            if let Err(error) = result {
                self.clock.turn(false, now);
                self.refuse(error.to_string());
            }
            let status = self.status(now);
            if told != Some(status) {
                told = Some(status);
                self.news.push(Msg::Replay(News::At(status)));
            }
            for message in std::mem::take(&mut self.news) {
                if messages.send(message).is_err() {
                    return;
                }
            }
        }
    }

    /// How long nothing will be to do.
    fn patience(&self, now: Instant) -> Duration {
        if !self.loaded {
            return Duration::ZERO;
        }
        let mut wait = if self.growing { GROWTH_PERIOD } else { Duration::from_secs(3600) };
        if self.clock.playing {
            wait = wait.min(TICK);
            if self.position < self.tape.len() {
                let due_ns = self.tape.time_ns(self.position + 1) as f64 - self.clock.now_ns(now);
                wait =
                    wait.min(Duration::from_secs_f64((due_ns / 1e9 / self.clock.speed).clamp(0.0, 3600.0)));
            }
        }
        wait
    }

    /// Reads what has been recorded since.
    fn load(&mut self, looked: &mut Instant, now: Instant) -> Result<()> {
        if self.loaded && (!self.growing || now.saturating_duration_since(*looked) < GROWTH_PERIOD) {
            return Ok(());
        }
        *looked = now;
        let before = self.tape.len();
        self.loaded = !self.tape.load(BATCH)?;
        if before == 0 && self.tape.len() > 0 && self.position == 0 {
            // The first event may lie before the epoch, while the network came up.
            self.clock.set(self.tape.time_ns(0) as f64, now);
        }
        if self.loaded {
            self.growing = !self.tape.has_ended() && (self.tape.len() > before || (self.is_live)());
        }
        Ok(())
    }

    fn obey(&mut self, order: Order, now: Instant) -> Result<()> {
        match order {
            Order::Toggle => self.obey(if self.clock.playing { Order::Pause } else { Order::Play }, now)?,
            Order::Pause => self.clock.turn(false, now),
            Order::Play => {
                // At the end of a run that is over there is nothing to go on with but its start.
                if self.loaded && !self.growing && self.position == self.tape.len() && !self.clock.playing {
                    self.go(0, self.tape.time_ns(0), now)?;
                }
                self.clock.turn(true, now);
            }
            Order::Speed(speed) => self.clock.speed(speed.clamp(*SPEEDS.start(), *SPEEDS.end()), now),
            Order::Shift(by) => {
                let speed = self.clock.speed;
                let next = match by > 0 {
                    true => STEPS.iter().find(|step| **step > speed * 1.001),
                    false => STEPS.iter().rfind(|step| **step < speed * 0.999),
                };
                self.clock.speed(next.copied().unwrap_or(speed), now);
            }
            Order::Leap(seconds) => {
                let last_ns = self.tape.time_ns(self.tape.len()) as f64;
                let to_ns = (self.clock.now_ns(now) + seconds * 1e9).min(last_ns);
                let to_ns = to_ns.max(self.tape.time_ns(0) as f64) as i64;
                self.go(self.tape.position_at(to_ns), to_ns, now)?;
            }
            Order::Step(by) => {
                self.clock.turn(false, now);
                let position = self.position.saturating_add_signed(by as isize).min(self.tape.len());
                self.go(position, self.tape.time_ns(position), now)?;
            }
            Order::Round(by) => match self.tape.round_beside(self.position, by > 0) {
                Some(position) => self.go(position, self.tape.time_ns(position), now)?,
                None => self.refuse(format!("no round ends {}", if by > 0 { "later" } else { "earlier" })),
            },
            Order::Seek(target) => {
                self.awaited = Some(target);
                self.arrive(now)?;
            }
        }
        Ok(())
    }

    /// Goes to the moment that was asked for, when it can be known where that is.
    fn arrive(&mut self, now: Instant) -> Result<()> {
        match self.awaited {
            Some(target) if self.loaded => {
                self.awaited = None;
                match self.tape.position_of(target) {
                    Ok(position) => self.go(position, self.time_of(target, position), now),
                    Err(why) => {
                        self.refuse(why);
                        Ok(())
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// The time that the clock shows at a moment: as asked for, as far as the recording goes.
    fn time_of(&self, target: Target, position: usize) -> i64 {
        match target {
            Target::Time(now_ns) => now_ns.clamp(self.tape.time_ns(0), self.tape.time_ns(self.tape.len())),
            _ => self.tape.time_ns(position),
        }
    }

    /// Shows another moment.
    fn go(&mut self, position: usize, at_ns: i64, now: Instant) -> Result<()> {
        self.clock.set(at_ns as f64, now);
        if position == self.position {
            return Ok(());
        }
        self.position = position;
        self.events = None;
        self.news.push(Msg::Replay(News::Data(Box::new(self.tape.at(position)?))));
        Ok(())
    }

    /// Lets happen what is due.
    fn play(&mut self, now: Instant) -> Result<()> {
        if !self.clock.playing || self.awaited.is_some() {
            return Ok(());
        }
        let due = self.tape.position_at(self.clock.now_ns(now) as i64);
        let until = due.min(self.position + BATCH);
        while self.position < until {
            let events = match &mut self.events {
                Some(events) => events,
                None => self.events.insert(self.tape.events(self.position)?),
            };
            let Some(event) = self.tape.next(events)? else { break };
            self.position += 1;
            self.news.push(Msg::Event(Box::new(event)));
        }
        let here_ns = self.tape.time_ns(self.position) as f64;
        if self.position < due {
            // Faster than events can be read: the clock waits for them.
            self.clock.set(here_ns, now);
        } else if self.position == self.tape.len() && self.clock.now_ns(now) > here_ns {
            self.clock.set(here_ns, now);
            // A reader at the end of what there was knows nothing of what comes.
            self.events = None;
            if self.loaded && !self.growing {
                self.clock.turn(false, now);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, why: String) {
        self.news.push(Msg::Replay(News::Refused(why)));
    }

    fn status(&self, now: Instant) -> Status {
        let end = match (self.loaded, self.tape.has_ended(), self.growing) {
            (false, ..) => End::Loading,
            (true, true, _) => End::Over,
            (true, false, true) => End::Growing,
            (true, false, false) => End::CutOff,
        };
        Status {
            playing: self.clock.playing,
            speed: self.clock.speed,
            position: self.position,
            events: self.tape.len(),
            // Tenths of a second show; finer steps would only make the view draw.
            now_ns: (self.clock.now_ns(now) / 1e8).round() as i64 * 100_000_000,
            first_ns: self.tape.time_ns(0),
            last_ns: self.tape.time_ns(self.tape.len()),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::recorder::Recorder,
        tui::{data::Data, fixture},
    };

    /// A player of the fixture's run, at its start and standing still, and the number of its events.
    fn player(dir: &std::path::Path, cut_bytes: usize) -> (Player, usize) {
        let events = fixture::events();
        let mut file = dtwn_proto::log::header().to_vec();
        events.iter().for_each(|event| dtwn_proto::log::append(&mut file, event).unwrap());
        file.truncate(file.len() - cut_bytes);
        std::fs::write(Recorder::path(dir), file).unwrap();
        let tape = Tape::open(dir, 4).unwrap();
        let mut player = Player::new(tape, 1.0, None, Box::new(|| false));
        let start = player.clock.since;
        while !player.loaded {
            player.load(&mut start.clone(), start).unwrap();
        }
        player.clock.turn(false, start);
        player.news.clear();
        player.growing = false;
        (player, events.len())
    }

    /// The model's data after what the player said.
    fn show(data: &mut Data, player: &mut Player) {
        for message in std::mem::take(&mut player.news) {
            match message {
                Msg::Event(event) => data.apply(&event),
                Msg::Replay(News::Data(now)) => *data = *now,
                _ => {}
            }
        }
    }

    #[test]
    fn time_brings_the_events_that_are_due_and_stops_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut player, count) = player(dir.path(), 0);
        let start = player.clock.since;
        let mut data = Data::default();
        player.obey(Order::Play, start).unwrap();
        player.obey(Order::Speed(2.0), start).unwrap();
        // The fixture's events are 0.1 s apart: at double speed 0.26 s bring those at 0 to 0.5 s.
        player.play(start + Duration::from_millis(260)).unwrap();
        show(&mut data, &mut player);
        assert_eq!(player.position, 6);
        assert!(data == player.tape.at(6).unwrap());
        player.play(start + Duration::from_secs(3600)).unwrap();
        show(&mut data, &mut player);
        assert_eq!((player.position, player.clock.playing), (count, false));
        assert!(data == player.tape.at(count).unwrap());
        // Playing on at the end begins anew.
        player.obey(Order::Toggle, start).unwrap();
        assert_eq!((player.position, player.clock.playing), (0, true));
    }

    #[test]
    fn orders_move_and_the_model_sees_the_same_as_a_fold() {
        let dir = tempfile::tempdir().unwrap();
        let (mut player, count) = player(dir.path(), 0);
        let now = player.clock.since;
        let mut data = Data::default();
        let orders = [
            Order::Step(1),
            Order::Leap(1.0),
            Order::Step(-3),
            Order::Seek(Target::Time(1_500_000_000)),
            Order::Round(1),
            Order::Leap(-100.0),
            Order::Seek(Target::Event(usize::MAX)),
            Order::Step(5),
        ];
        let mut positions = Vec::new();
        for order in orders {
            player.obey(order, now).unwrap();
            show(&mut data, &mut player);
            assert!(data == player.tape.at(player.position).unwrap(), "{order:?}");
            positions.push(player.position);
        }
        let round = player.tape.position_of(Target::Round(1)).unwrap();
        assert_eq!(positions, [1, 11, 8, 16, round, 1, count, count]);
        player.obey(Order::Round(1), now).unwrap();
        assert!(matches!(player.news.as_slice(), [Msg::Replay(News::Refused(_))]));
    }

    #[test]
    fn a_moment_is_reached_once_it_has_been_read() {
        let dir = tempfile::tempdir().unwrap();
        let (before, count) = player(dir.path(), 0);
        let mut player = Player::new(before.tape, 1.0, Some(Target::Event(count - 1)), Box::new(|| false));
        let now = player.clock.since;
        player.arrive(now).unwrap();
        player.play(now + Duration::from_secs(60)).unwrap();
        assert_eq!(player.position, 0);
        player.loaded = true;
        player.arrive(now).unwrap();
        assert_eq!((player.position, player.awaited), (count - 1, None));
    }

    #[test]
    fn a_run_that_was_cut_off_is_shown_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (player, count) = player(dir.path(), 3);
        assert_eq!(player.tape.len(), count - 1);
        assert_eq!(player.status(player.clock.since).end, End::CutOff);
    }

    #[test]
    fn speeds_go_up_and_down_in_steps_and_stay_in_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let (mut player, _) = player(dir.path(), 0);
        let now = player.clock.since;
        for (order, speed) in [
            (Order::Shift(1), 2.0),
            (Order::Speed(3.0), 3.0),
            (Order::Shift(-1), 2.0),
            (Order::Shift(1), 5.0),
            (Order::Speed(1000.0), 100.0),
            (Order::Shift(1), 100.0),
            (Order::Speed(0.0), 0.1),
            (Order::Shift(-1), 0.1),
        ] {
            player.obey(order, now).unwrap();
            assert_eq!(player.clock.speed, speed, "{order:?}");
        }
    }
}
