//! Readiness, and the questions that a ready server is asked.

use std::time::{Duration, Instant};

use super::answer::{reply, request};
use super::director::{DirectError, Director, Seen};
use super::neighbour::last_words;
use super::stream;
use super::wire::{Answer, Ask, Until};
use crate::path::escape;
use crate::profile::{Command, Http, Moment, Probe, Seconds, Tcp};

/// Between two looks at what makes no event: a file, a socket's peer, an answer, a command.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A check is a program of the workload's own, and costs it time.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// So long a check's program may be missing: what starts the server may write it, and engines do not look before the first
/// interval is over.
const MISSING_AT_MOST: Duration = Duration::from_secs(2);

/// So long what the program does may take to be heard of.
const HEARSAY: Duration = Duration::from_secs(1);

/// What docker allows a health check that does not say.
const LONGEST_CHECK: Seconds = Seconds(30);

impl Director<'_> {
    /// Waits until the server is ready; `false` if it ends, the time is up, or it never will be.
    pub(super) fn become_ready(&mut self, moment: Moment<'_>) -> Result<bool, DirectError> {
        match moment {
            // The tracer tells of the call just before it runs; the first connection is tried until it is taken.
            Moment::Port(port) => self.until(|director| {
                let may_listen = !director.is_traced || director.seen.listening.contains(&port);
                Ok(may_listen && director.ask(&Ask::Port(port)) == Answer::Yes)
            }),
            Moment::Log(text) => self.until(|director| {
                let seen = &director.seen.observation;
                let has = |log: &[u8]| log.windows(text.len().max(1)).any(|window| window == text.as_bytes());
                Ok(has(&seen.stdout) || has(&seen.stderr))
            }),
            Moment::Socket(path) => {
                self.until(|director| Ok(director.ask(&Ask::Socket(path.to_owned())) == Answer::Yes))
            }
            Moment::File(_) => self.until(|director| {
                let answer = director.ask(&Ask::File);
                let is_there = answer == Answer::Yes;
                director.not_ready = if let Answer::Refused(why) = answer { Some(why) } else { None };
                Ok(is_there)
            }),
            Moment::Http(http) => self.until(|director| Ok(director.http(http).is_none())),
            Moment::Command(command) => self.until(|director| {
                let output = director.neighbour(command, director.patience())?;
                Ok(output.is_ok_and(|output| output.status.success()))
            }),
            Moment::Check(command) => self.until_each(BETWEEN_CHECKS, |director| {
                let longest = director.check_timeout.unwrap_or(LONGEST_CHECK).0.max(1);
                let seconds = director.patience().as_secs().clamp(1, longest);
                // It is killed when its time is over, which is an answer too.
                let deadline = Instant::now() + Duration::from_secs(seconds + 5);
                let answer = director.ask_until(deadline, &Ask::Check { command: command.0.clone(), seconds });
                let line = || line(command);
                let is_well = answer == Answer::Yes;
                if let Answer::NotExecuted(why) = answer {
                    let since = *director.missing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= MISSING_AT_MOST {
                        director.hopeless = Some(format!("its check `{}` cannot be run: {why}", line()));
                    }
                } else {
                    director.missing_since = None;
                    if let Answer::Refused(why) = answer {
                        director.not_ready = Some(format!("its check `{}`: {why}", line()));
                    }
                }
                Ok(is_well)
            }),
            Moment::Idle(seconds) => self.until_each(BETWEEN_CHECKS, |director| {
                let is_server = director.seen.has_bound || !director.seen.listening.is_empty();
                Ok(is_server && director.ask(&Ask::Idle { seconds: seconds.0 }) == Answer::Yes)
            }),
            Moment::After(seconds) => {
                let end = Instant::now() + seconds.duration();
                Ok(!self.wait_for(end.min(self.deadline), Seen::has_ended))
            }
        }
    }

    /// Waits until nothing was touched for so long, but no more than ten times as long: some servers never idle.
    pub(super) fn settle(&mut self, idle: Option<Seconds>) {
        let Some(idle) = idle else { return };
        let end = (Instant::now() + idle.duration() * 10).min(self.deadline);
        while Instant::now() < end && self.ask(&Ask::Idle { seconds: idle.0 }) != Answer::Yes {
            if self.wait_for((Instant::now() + BETWEEN_CHECKS).min(end), Seen::has_ended) {
                return;
            }
        }
    }

    /// Looks whenever something was told, and every few milliseconds.
    fn until(&mut self, is_ready: impl Fn(&mut Self) -> Result<bool, DirectError>) -> Result<bool, DirectError> {
        self.until_each(BETWEEN_LOOKS, is_ready)
    }

    fn until_each(
        &mut self,
        pause: Duration,
        is_ready: impl Fn(&mut Self) -> Result<bool, DirectError>,
    ) -> Result<bool, DirectError> {
        while !self.seen.has_ended() && self.hopeless.is_none() && Instant::now() < self.deadline {
            if is_ready(self)? {
                return Ok(true);
            }
            let next = (Instant::now() + pause).min(self.deadline);
            let listening = self.seen.listening.len();
            self.wait_for(next, |seen| seen.listening.len() != listening);
        }
        Ok(false)
    }

    /// What is wrong with the answer to a probe; `None` if nothing is.
    pub(super) fn probe(&mut self, probe: &Probe) -> Result<Option<String>, DirectError> {
        if let Some(http) = &probe.http {
            return Ok(self.http(http));
        }
        if let Some(tcp) = &probe.tcp {
            return Ok(self.tcp(tcp));
        }
        let command = probe.command.as_ref().expect("loading has checked that a probe is one of three");
        let line = line(command);
        let output = match self.neighbour(command, self.patience())? {
            Ok(output) => output,
            Err(why) => return Ok(Some(format!("`{line}`: {why}"))),
        };
        if output.status.code() != Some(i32::from(probe.status.unwrap_or(0))) {
            let said = [&output.stderr, &output.stdout]
                .map(|text| text.trim_ascii())
                .into_iter()
                .find(|text| !text.is_empty());
            let said = said.map_or_else(String::new, |text| format!(", {}", last_words(text)));
            return Ok(Some(format!("`{line}`: {}{said}", output.status)));
        }
        let check = probe.stdout.as_ref();
        let fault = check.and_then(|check| stream::fault(check, &output.stdout, output.wrote_more));
        Ok(fault.map(|fault| format!("what `{line}` wrote {fault}")))
    }

    fn http(&mut self, http: &Http) -> Option<String> {
        let line = escape(format!("{} {}", http.method, http.path).as_bytes());
        if let Some(why) = self.is_others(http.port) {
            return Some(format!("{line}: {why}"));
        }
        let until = Until::Reply { method: http.method.clone() };
        let ask = Ask::Exchange { port: http.port, send: request(http), until, milliseconds: self.milliseconds() };
        let bytes = match self.ask(&ask) {
            Answer::Received(bytes) => bytes,
            Answer::Refused(why) => return Some(format!("{line}: {why}")),
            Answer::Yes | Answer::No | Answer::NotExecuted(_) => return Some(format!("{line}: no answer")),
        };
        let Some(reply) = reply(&bytes, &http.method) else { return Some(format!("{line}: no whole HTTP answer")) };
        if reply.status != http.status {
            return Some(format!("{line}: status {}, and {} was expected", reply.status, http.status));
        }
        let fault = http.text.as_ref().and_then(|check| check.fault(&reply.body));
        fault.map(|fault| format!("{line}: the answer {fault}"))
    }

    fn tcp(&mut self, tcp: &Tcp) -> Option<String> {
        if let Some(why) = self.is_others(tcp.port) {
            return Some(why);
        }
        let ask = Ask::Exchange {
            port: tcp.port,
            send: tcp.send.clone(),
            until: Until::Text(tcp.contains.clone()),
            milliseconds: self.milliseconds(),
        };
        match self.ask(&ask) {
            Answer::Received(bytes) if tcp.is_answered(&bytes) => None,
            Answer::Received(bytes) => Some(format!(
                "port {} answered `{}`, without `{}`",
                tcp.port,
                escape(&bytes),
                escape(tcp.contains.as_bytes())
            )),
            Answer::Refused(why) => Some(format!("port {}: {why}", tcp.port)),
            Answer::Yes | Answer::No | Answer::NotExecuted(_) => Some(format!("port {}: no answer", tcp.port)),
        }
    }

    /// Why an answer at `port` would not be the workload's, as in a network where another server has the port; `None` if
    /// it would be.
    fn is_others(&mut self, port: u16) -> Option<String> {
        if !self.is_traced || !self.shares_network {
            return None;
        }
        let until = Instant::now() + HEARSAY;
        self.wait_for(until, |seen| seen.listening.contains(&port) || seen.has_ended());
        (!self.seen.listening.contains(&port)).then(|| format!("the workload does not listen at port {port}"))
    }

    /// Milliseconds that are left.
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.patience().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// A command in one line: the first one of a script stands for all of it.
fn line(command: &Command) -> String {
    let words = command.0.join(" ");
    let mut lines = words.lines();
    let first = escape(lines.next().unwrap_or_default().as_bytes());
    if lines.next().is_some() { format!("{first} ...") } else { first }
}
