//! Spans on their way to the collector: in batches, asked again where that may help, and given up after a while.
//!
//! One batch is under way at a time, and what is made meanwhile waits in the queue. A collector that hangs fills it, and then spans
//! are lost and counted; requests wait for none of it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep, sleep_until};

use super::Queue;
use super::client::{Deliver, Delivery};
use super::otlp::{self, Resource, Span};
use crate::lifecycle::Shutdown;
use crate::metrics::{Common, Exported};

/// A batch is sent when it holds so many spans, or when its first one is so old.
const MOST: usize = 512;
const EVERY: Duration = Duration::from_secs(5);

/// The first pause between two attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A batch that no attempt has delivered for so long is given up.
const GIVE_UP: Duration = Duration::from_mins(1);

/// A failure is logged, but not one for each batch.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Sends what comes out of a queue.
#[derive(Debug)]
pub struct Export<D> {
    queue: Queue,
    collector: D,
    resource: Resource,
    counts: Arc<Common>,
    /// Draining: the last ones are sent, at once.
    ending: Shutdown,
    batch: Vec<Span>,
    complained_at: Option<Instant>,
}

// === impl Export ===

impl<D: Deliver> Export<D> {
    /// Sends what comes out of `queue`, as the spans of `resource`.
    pub fn new(queue: Queue, collector: D, resource: Resource, counts: Arc<Common>, ending: Shutdown) -> Self {
        Self { queue, collector, resource, counts, ending, batch: Vec::new(), complained_at: None }
    }

    /// Until nobody can make a span any more, or the process ends; and then what is left.
    pub async fn run(mut self) {
        let mut more = true;
        while more {
            more = self.gather().await;
            if !self.batch.is_empty() {
                self.send().await;
            }
        }
    }

    /// Fills the batch until it is due; whether there may be another one.
    async fn gather(&mut self) -> bool {
        let ending = self.ending.draining();
        tokio::pin!(ending);
        let mut due = None;
        while self.batch.len() < MOST {
            let until = due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                // What is in the queue still comes out.
                () = &mut ending, if !self.queue.is_closed() => self.queue.close(),
                spans = self.queue.recv() => {
                    let Some(spans) = spans else { return false };
                    due.get_or_insert_with(|| Instant::now() + EVERY);
                    self.batch.extend(spans);
                }
                () = sleep_until(until), if due.is_some() => break,
            }
        }
        true
    }

    async fn send(&mut self) {
        let spans = std::mem::take(&mut self.batch);
        let count = spans.len() as u64;
        let message = otlp::request(&self.resource, spans).encode_to_vec().into();
        let delivered = self.deliver(message).await;
        let rejected = delivered.map_or(0, |rejected| rejected.min(count));
        if delivered.is_none() {
            self.counts.spans_exported(Exported::Failed).add_some(count);
        } else {
            self.counts.spans_exported(Exported::Rejected).add_some(rejected);
            self.counts.spans_exported(Exported::Ok).add_some(count - rejected);
        }
    }

    /// How many spans of the message were not taken; `None`: none was.
    async fn deliver(&mut self, message: bytes::Bytes) -> Option<u64> {
        let (end, mut pause) = (Instant::now() + GIVE_UP, FIRST_PAUSE);
        loop {
            let (delivery, problem) = self.collector.deliver(message.clone()).await;
            let after = match delivery {
                Delivery::Taken { rejected } => return Some(rejected),
                Delivery::Refused => None,
                Delivery::Later(after) => Some(after),
            };
            let own = pause.mul_f64(1.0 - 0.5 * fastrand::f64());
            pause = (pause * 2).min(LONGEST_PAUSE);
            // The collector can make the pause longer, and never shorter: 'at once' would be a loop.
            let wait = after.map(|after| after.map_or(own, |after| after.clamp(own, LONGEST_PAUSE)));
            let again = wait.filter(|wait| Instant::now() + *wait < end && !self.ending.is_draining());
            self.complain(problem.as_deref().unwrap_or_default(), again.is_some());
            // At the end there is one more attempt, and that at once.
            let waited = sleep(again?);
            tokio::select! {
                () = waited => {}
                () = self.ending.draining() => {}
            }
        }
    }

    fn complain(&mut self, problem: &str, again: bool) {
        let now = Instant::now();
        if self.complained_at.is_none_or(|at| now.duration_since(at) >= COMPLAIN_EVERY) {
            self.complained_at = Some(now);
            tracing::warn!(problem, again, "spans cannot be sent to the collector");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::metrics::{Metrics, Names};
    use crate::traces::Tracer;
    use crate::traces::context::Context;
    use crate::traces::otlp::{ExportTraceServiceRequest, Kind};

    /// Answers as it was told, and then takes everything; notes when how many spans came.
    #[derive(Default)]
    struct Fake {
        answers: Mutex<VecDeque<Delivery>>,
        came: Mutex<Vec<(u64, usize)>>,
        hangs: bool,
    }

    impl Deliver for Arc<Fake> {
        async fn deliver(&self, message: Bytes) -> (Delivery, Option<String>) {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            let message = ExportTraceServiceRequest::decode(message).unwrap();
            let spans = message.resource_spans[0].scope_spans[0].spans.len();
            self.came.lock().unwrap().push((seconds(), spans));
            let answer = self.answers.lock().unwrap().pop_front();
            (answer.unwrap_or(Delivery::Taken { rejected: 0 }), None)
        }
    }

    thread_local! {
        static BEGUN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    }

    /// Since the test began.
    fn seconds() -> u64 {
        BEGUN.get().unwrap().elapsed().as_secs()
    }

    struct Test {
        tracer: Arc<Tracer>,
        metrics: Metrics,
        fake: Arc<Fake>,
        ending: Shutdown,
        run: tokio::task::JoinHandle<()>,
    }

    impl Test {
        fn new(answers: &[Delivery], hangs: bool) -> Self {
            BEGUN.set(Some(Instant::now()));
            let metrics = Metrics::new(Names::default());
            let fake =
                Arc::new(Fake { answers: Mutex::new(answers.iter().copied().collect()), hangs, ..Fake::default() });
            let counts = metrics.control().common();
            let (tracer, queue) = Tracer::new(1.0, "", Duration::ZERO, Arc::clone(&counts));
            let ending = Shutdown::new();
            let export = Export::new(queue, Arc::clone(&fake), Resource::default(), counts, ending.clone());
            let run = crate::lifecycle::Spawner::current().spawn(export.run());
            Self { tracer, metrics, fake, ending, run }
        }

        fn send(&self, spans: usize) {
            let span = || Span::new("a", Kind::Server, Context::root(true), None, [0, 0]);
            self.tracer.send((0..spans).map(|_| span()).collect());
        }

        fn came(&self) -> Vec<(u64, usize)> {
            self.fake.came.lock().unwrap().clone()
        }

        /// Dropped, taken, rejected, failed.
        fn counts(&self) -> [u64; 4] {
            let control = self.metrics.control();
            let exported = |result| control.spans_exported(result).get();
            let [ok, rejected, failed] = [Exported::Ok, Exported::Rejected, Exported::Failed].map(exported);
            [control.spans_dropped.get(), ok, rejected, failed]
        }
    }

    async fn pass(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    /// Fails without either of the two: the count, or the age.
    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_when_it_is_full_or_five_seconds_old() {
        let test = Test::new(&[], false);
        test.send(3);
        pass(4).await;
        test.send(2);
        assert_eq!(test.came(), []);
        pass(2).await;
        assert_eq!(test.came(), [(5, 5)]);
        for _ in 0..MOST / 4 {
            test.send(4);
        }
        pass(1).await;
        assert_eq!(test.came()[1..], [(6, MOST)]);
        assert_eq!(test.counts(), [0, 5 + MOST as u64, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_batch_is_not_sent() {
        let test = Test::new(&[], false);
        pass(3600).await;
        test.ending.drain();
        test.run.await.unwrap();
        assert_eq!(test.fake.came.lock().unwrap().len(), 0);
    }

    /// Fails where the collector's word is not kept, or has no bound.
    #[tokio::test(start_paused = true)]
    async fn it_asks_again_when_the_collector_says_and_within_bounds() {
        let later = |seconds| Delivery::Later(Some(Duration::from_secs(seconds)));
        let test = Test::new(&[later(7), later(86_400), Delivery::Taken { rejected: 2 }], false);
        test.send(5);
        pass(120).await;
        assert_eq!(test.came(), [(5, 5), (12, 5), (42, 5)]);
        assert_eq!(test.counts(), [0, 3, 2, 0]);
    }

    /// Fails where the collector's word makes the pause shorter.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_says_at_once_is_not_asked_in_a_loop() {
        let test = Test::new(&[Delivery::Later(Some(Duration::ZERO)); 1000], false);
        test.send(5);
        pass(120).await;
        let attempts = test.came().len();
        assert!((3..=10).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_after_a_minute_and_goes_on_with_the_next_batch() {
        let test = Test::new(&[Delivery::Later(None); 1000], false);
        test.send(5);
        pass(70).await;
        let attempts = test.came().len();
        assert!((5..=8).contains(&attempts), "{:?}", test.came());
        assert_eq!(test.counts(), [0, 0, 0, 5]);
        test.fake.answers.lock().unwrap().clear();
        test.send(1);
        pass(10).await;
        assert_eq!(test.counts(), [0, 1, 0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_sent_again() {
        let test = Test::new(&[Delivery::Refused], false);
        test.send(5);
        pass(120).await;
        assert_eq!((test.came().len(), test.counts()), (1, [0, 0, 0, 5]));
    }

    /// Fails where the queue has no bound, or who makes spans waits for it.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
        let test = Test::new(&[], true);
        test.send(1);
        pass(6).await;
        for _ in 0..5000 {
            test.send(4);
        }
        let [dropped, taken, ..] = test.counts();
        assert_eq!((dropped, taken), (4 * (5000 - crate::traces::QUEUE as u64), 0));
    }

    /// Fails where the end waits for the age of a batch, for a pause, or loses what is in the queue.
    #[tokio::test(start_paused = true)]
    async fn at_the_end_everything_is_sent_at_once() {
        let test = Test::new(&[], false);
        for _ in 0..300 {
            test.send(4);
        }
        test.ending.drain();
        let Test { run, fake, .. } = test;
        run.await.unwrap();
        let came = fake.came.lock().unwrap().clone();
        assert_eq!(came.iter().map(|(_, spans)| spans).sum::<usize>(), 1200);
        assert!(came.iter().all(|(at, _)| *at == 0), "{came:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_a_pause_is_over_and_there_is_one_more_attempt() {
        let test = Test::new(&[Delivery::Later(Some(Duration::from_secs(20))); 9], false);
        test.send(4);
        pass(6).await;
        test.ending.drain();
        let Test { run, fake, .. } = test;
        run.await.unwrap();
        assert_eq!(*fake.came.lock().unwrap(), [(5, 4), (6, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_can_make_a_span_any_more() {
        let Test { tracer, run, fake, .. } = {
            let test = Test::new(&[], false);
            test.send(2);
            test
        };
        drop(tracer);
        run.await.unwrap();
        assert_eq!(*fake.came.lock().unwrap(), [(0, 2)]);
    }
}
