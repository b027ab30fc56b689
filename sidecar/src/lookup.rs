//! What the sidecar knows of the destinations its application dials: asked for when first needed, then kept up to date.
//!
//! A connection to a destination nobody knows waits for the answer, but never long: without one it is passed on as it
//! is, and the answer serves the next. The control plane is told in the words of the push protocol ("ADDRESS:PORT").

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use meshgate_proxy::UnknownDestination;
use meshgate_proxy::push::link::Interests;
use meshgate_proxy::push::resource::Kind;
use meshgate_proxy::push::stream::Interest;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

/// Longest wait of one connection: within the cluster an answer takes a few milliseconds.
const ANSWER_MAX: Duration = Duration::from_millis(300);
/// Destinations followed at once. A few hundred bytes each here and at the control plane; an application that dials
/// more (a crawler) makes the oldest be forgotten.
const DESTINATIONS_MAX: usize = 4096;

/// What was asked and answered so far.
#[derive(Debug, Default)]
struct Book {
    answers: HashMap<SocketAddr, Answer>,
    /// Oldest first.
    order: VecDeque<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Asked, and nobody has waited in vain yet.
    Awaited,
    /// Asked, and somebody has: later connections do not wait, the answer will come when it can.
    Late,
    /// The control plane has said what it is, or that it knows nothing.
    Given,
}

/// What to do about a destination.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Subscribe to it now.
    new: bool,
    /// Wait for the answer.
    wait: bool,
    /// Forgotten to make room: unsubscribe.
    forgotten: Option<(SocketAddr, Answer)>,
}

impl Book {
    fn ask(&mut self, destination: SocketAddr) -> Asked {
        if let Some(answer) = self.answers.get(&destination) {
            return Asked {
                new: false,
                wait: *answer == Answer::Awaited,
                forgotten: None,
            };
        }
        let full = self.order.len() >= DESTINATIONS_MAX;
        let oldest = full.then(|| self.order.pop_front()).flatten();
        let forgotten = oldest.and_then(|oldest| self.answers.remove_entry(&oldest));
        self.answers.insert(destination, Answer::Awaited);
        self.order.push_back(destination);
        Asked {
            new: true,
            wait: true,
            forgotten,
        }
    }

    /// Undoes an [`ask`](Self::ask) for something new that the control plane was not told of: the next one asks again.
    fn unasked(&mut self, destination: SocketAddr, asked: Asked) {
        self.answers.remove(&destination);
        self.order.pop_back();
        if let Some((oldest, answer)) = asked.forgotten {
            self.answers.insert(oldest, answer);
            self.order.push_front(oldest);
        }
    }

    fn answered(&mut self, destination: SocketAddr) {
        if let Some(answer) = self.answers.get_mut(&destination) {
            *answer = Answer::Given;
        }
    }

    fn late(&mut self, destination: SocketAddr) {
        if let Some(answer @ Answer::Awaited) = self.answers.get_mut(&destination) {
            *answer = Answer::Late;
        }
    }

    fn is_awaited(&self, destination: SocketAddr) -> bool {
        self.answers.get(&destination) == Some(&Answer::Awaited)
    }
}

/// Asks the control plane about destinations. Clones share what is known.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    book: Arc<Mutex<Book>>,
    interests: Interests,
    /// Changes with every answer, after it is enforced.
    answers: watch::Sender<()>,
}

impl Lookup {
    pub(crate) fn new(interests: Interests) -> Self {
        Self {
            book: Arc::default(),
            interests,
            answers: watch::Sender::new(()),
        }
    }

    /// These are enforced, or known not to exist: whoever waits for them goes on.
    pub(crate) fn answered(&self, destinations: impl IntoIterator<Item = SocketAddr>) {
        let mut book = self.book();
        for destination in destinations {
            book.answered(destination);
        }
        drop(book);
        self.answers.send_replace(());
    }

    async fn answer(&self, destination: SocketAddr) {
        // Subscribed before asking: an answer in between is not missed.
        let mut answers = self.answers.subscribe();
        if !self.ask_once(destination) {
            return;
        }
        let given = answers.wait_for(|()| !self.book().is_awaited(destination));
        if timeout(ANSWER_MAX, given).await.is_err() {
            self.book().late(destination);
        }
    }

    /// Asks the control plane if nobody has; whether an answer is to be waited for.
    fn ask_once(&self, destination: SocketAddr) -> bool {
        let mut book = self.book();
        let asked = book.ask(destination);
        if !asked.new {
            return asked.wait;
        }
        let unwant = asked.forgotten.iter();
        let mut interests: Vec<Interest> = unwant
            .map(|(oldest, _)| Interest::Unwant(Kind::Service, oldest.to_string()))
            .collect();
        interests.push(Interest::Want(Kind::Service, destination.to_string()));
        if self.interests.tell(interests) {
            return asked.wait;
        }
        book.unasked(destination, asked);
        warn!(
            %destination,
            "too many questions wait for the control plane: this connection is passed on as it is, the next one asks again"
        );
        false
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnknownDestination for Lookup {
    fn ask(&self, destination: SocketAddr) -> BoxFuture<'_, ()> {
        self.answer(destination).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(number: usize) -> SocketAddr {
        let port = u16::try_from(number % 60_000 + 1).unwrap();
        SocketAddr::from(([10, 0, 0, u8::try_from(number / 60_000).unwrap()], port))
    }

    /// Runs "ask", "answer" and "late" on one destination; shows what the last ask leads to.
    fn check(script: &str, expected: &str) {
        let mut book = Book::default();
        let mut shown = String::new();
        for step in script.split_whitespace() {
            match step {
                "ask" => {
                    let asked = book.ask(destination(0));
                    shown = format!("new:{} wait:{}", asked.new, asked.wait);
                }
                "answer" => book.answered(destination(0)),
                "late" => book.late(destination(0)),
                other => panic!("{other}"),
            }
        }
        assert_eq!(shown, expected, "{script}");
    }

    #[test]
    fn only_the_first_ones_wait() {
        check("ask", "new:true wait:true");
        check("ask ask", "new:false wait:true");
        check("ask answer ask", "new:false wait:false");
        check("ask late ask", "new:false wait:false");
        check("ask late answer ask", "new:false wait:false");
        check("ask answer late ask", "new:false wait:false");
        check("answer ask", "new:true wait:true");
    }

    #[test]
    fn what_could_not_be_asked_is_asked_again() {
        // Nobody takes what is told.
        let (interests, receiver) = meshgate_proxy::push::link::interests();
        let lookup = Lookup::new(interests);
        let told = (0..DESTINATIONS_MAX).take_while(|number| lookup.ask_once(destination(*number)));
        let told = told.count();
        assert!((1..DESTINATIONS_MAX).contains(&told), "{told}");
        assert_eq!(lookup.book().answers.len(), told);
        assert_eq!(lookup.book().order.len(), told);
        // Passed on without waiting.
        let passed_on = lookup.answer(destination(told)).now_or_never();
        assert_eq!(passed_on, Some(()));
        assert!(!lookup.book().is_awaited(destination(told)));
        drop(receiver);
    }

    #[test]
    fn what_was_forgotten_in_vain_is_known_again() {
        let mut book = Book::default();
        for number in 0..DESTINATIONS_MAX {
            book.ask(destination(number));
        }
        book.answered(destination(0));
        let asked = book.ask(destination(DESTINATIONS_MAX));
        book.unasked(destination(DESTINATIONS_MAX), asked);
        assert!(!book.ask(destination(0)).new);
        let asked = book.ask(destination(DESTINATIONS_MAX));
        assert_eq!(asked.forgotten, Some((destination(0), Answer::Given)));
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut book = Book::default();
        for number in 0..DESTINATIONS_MAX {
            assert_eq!(book.ask(destination(number)).forgotten, None);
        }
        let asked = book.ask(destination(DESTINATIONS_MAX));
        assert_eq!(asked.forgotten, Some((destination(0), Answer::Awaited)));
        assert!(book.ask(destination(0)).new);
        assert_eq!(book.answers.len(), DESTINATIONS_MAX);
    }
}
