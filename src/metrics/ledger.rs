//! What was counted under one configuration after the other, and the sum of it.
//!
//! Ids belong to one configuration, so each has tables of its own, and a request that is under way counts on in those of
//! the configuration under which it began. A scrape adds them up by name; nothing is lost and nothing starts anew. Tables
//! in which nobody counts any more are folded into one, so that their number does not grow with the reloads.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::value::Fold;
use super::{Common, Metrics, Names, Shard};

/// The tables of a process, the newest last.
#[derive(Debug)]
pub struct Ledger {
    tables: Mutex<Vec<Arc<Metrics>>>,
    common: Arc<Common>,
}

// === impl Ledger ===

impl Ledger {
    /// With the tables of the first configuration.
    pub fn new(first: Arc<Metrics>) -> Self {
        let common = Arc::clone(&first.control.common);
        Self { tables: Mutex::new(vec![first]), common }
    }

    /// Tables for another configuration.
    pub fn begin(&self, names: Names) -> Arc<Metrics> {
        let next = Arc::new(Metrics::with(names, Arc::clone(&self.common)));
        let mut tables = self.tables();
        let (over, mut live): (Vec<_>, Vec<_>) = tables.drain(..).partition(is_over);
        if !over.is_empty() {
            live.insert(0, Arc::new(sum(&over, &self.common)));
        }
        live.push(Arc::clone(&next));
        *tables = live;
        next
    }

    /// Everything that was counted, for a scrape.
    pub fn sum(&self) -> Arc<Metrics> {
        let tables = self.tables().clone();
        match &tables[..] {
            [only] => Arc::clone(only),
            several => Arc::new(sum(several, &self.common)),
        }
    }

    /// What belongs to no configuration.
    pub fn common(&self) -> &Common {
        &self.common
    }

    fn tables(&self) -> MutexGuard<'_, Vec<Arc<Metrics>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody counts there any more. Nobody can begin to either: what is not shared cannot be cloned.
fn is_over(tables: &Arc<Metrics>) -> bool {
    Arc::strong_count(tables) == 1 && tables.shards().iter().all(|shard| Arc::strong_count(shard) == 2)
}

/// One set of tables out of several: the names of the newest first.
fn sum(tables: &[Arc<Metrics>], common: &Arc<Common>) -> Metrics {
    let of = |list: fn(&Names) -> &Vec<String>, appended: usize| {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for names in tables.iter().rev().map(|tables| &tables.names) {
            let list = list(names);
            all.extend(list[..list.len() - appended].iter().filter(|name| seen.insert(*name)).cloned());
        }
        all
    };
    let outcomes = tables.last().map(|tables| &tables.names.outcomes[..]).unwrap_or_default();
    let names = Names {
        routes: of(|names| &names.routes, 1),
        templates: of(|names| &names.templates, 1),
        upstreams: of(|names| &names.upstreams, 0),
        listeners: of(|names| &names.listeners, 0),
        outcomes: outcomes.split_last().map(|(_, own)| own.to_vec()).unwrap_or_default(),
    };
    let into = Metrics::with(names, Arc::clone(common));
    let shard = into.shard();
    for from in tables {
        let (routes, upstreams) =
            (places(&into, from, |names| &names.routes, 1), places(&into, from, |names| &names.upstreams, 0));
        let listeners = places(&into, from, |names| &names.listeners, 0);
        for each in from.shards() {
            add(&shard, &each, &routes, &upstreams, &listeners);
        }
        let templates = places(&into, from, |names| &names.templates, 1);
        fold(&into.control.mints, &from.control.mints, &templates);
        fold(&into.control.refreshes, &from.control.refreshes, &templates);
        fold(&into.control.token_bytes, &from.control.token_bytes, &templates);
    }
    into
}

fn add(into: &Shard, from: &Shard, routes: &[usize], upstreams: &[usize], listeners: &[usize]) {
    fold(&into.requests, &from.requests, routes);
    fold(&into.verdicts, &from.verdicts, routes);
    fold(&into.lookups, &from.lookups, routes);
    fold(&into.degraded, &from.degraded, routes);
    fold(&into.websockets, &from.websockets, routes);
    fold(&into.request_seconds, &from.request_seconds, routes);
    fold(&into.overhead_seconds, &from.overhead_seconds, routes);
    fold(&into.upstream_seconds, &from.upstream_seconds, upstreams);
    fold(&into.connections, &from.connections, listeners);
    into.parse_errors.fold(&from.parse_errors);
    into.tls_handshake_errors.fold(&from.tls_handshake_errors);
}

/// Where each name of one stands in the other. What is `appended` to every list stands at the end of both, whatever
/// somebody calls a route.
fn places(into: &Metrics, from: &Metrics, list: fn(&Names) -> &Vec<String>, appended: usize) -> Vec<usize> {
    let (into, from) = (list(&into.names), list(&from.names));
    let (named, own) = (into.len() - appended, from.len() - appended);
    let at: HashMap<&String, usize> = into[..named].iter().enumerate().map(|(index, name)| (name, index)).collect();
    // Every name is there: the sum has them all.
    from[..own].iter().filter_map(|name| at.get(name).copied()).chain(named..into.len()).collect()
}

/// Adds tables that have as many cells for each name.
fn fold<T: Fold>(into: &[T], from: &[T], places: &[usize]) {
    let cells = from.len().checked_div(places.len()).unwrap_or(0);
    for (index, value) in from.iter().enumerate() {
        into[places[index / cells] * cells + index % cells].fold(value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{MintResult, OutcomeId, OutcomeName, RouteId, TemplateId};

    fn names(routes: &[&str]) -> Names {
        let outcomes = vec![OutcomeName { status: "2xx".to_owned(), code: "" }];
        let routes: Vec<String> = routes.iter().map(|&name| name.to_owned()).collect();
        Names {
            templates: routes.clone(),
            upstreams: routes.clone(),
            listeners: vec!["l".to_owned()],
            routes,
            outcomes,
        }
    }

    fn ledger(routes: &[&str]) -> (Ledger, Arc<Metrics>) {
        let first = Arc::new(Metrics::new(names(routes)));
        (Ledger::new(Arc::clone(&first)), first)
    }

    fn count(metrics: &Metrics, route: &str) -> u64 {
        let index = metrics.names().routes.iter().position(|name| name == route).unwrap();
        metrics.shards().iter().map(|shard| shard.requests(RouteId::new(index), OutcomeId::new(0)).get()).sum()
    }

    #[test]
    fn a_count_goes_on_under_its_name_wherever_the_next_configuration_puts_it() {
        let (ledger, first) = ledger(&["a", "b"]);
        let old = first.shard();
        old.requests(RouteId::new(0), OutcomeId::new(0)).bump();
        old.requests(RouteId::new(1), OutcomeId::new(0)).bump();
        old.requests(first.no_route(), OutcomeId::new(0)).bump();
        let next = ledger.begin(names(&["c", "b"]));
        let new = next.shard();
        new.requests(RouteId::new(1), OutcomeId::new(0)).bump();
        new.upstream_seconds[1].observe(Duration::from_millis(1));
        next.control().mints(TemplateId::new(1), MintResult::Ok).add();
        // A request that began before.
        old.requests(RouteId::new(1), OutcomeId::new(0)).bump();
        let sum = ledger.sum();
        assert_eq!(sum.names().routes, ["c", "b", "a", "none"]);
        assert_eq!(["a", "b", "c", "none"].map(|route| count(&sum, route)), [1, 3, 0, 1]);
        let (buckets, nanos) = sum.shards()[0].upstream_seconds[1].read();
        assert_eq!((buckets.iter().sum::<u64>(), nanos), (1, 1_000_000));
        assert_eq!(sum.control().mints(TemplateId::new(1), MintResult::Ok).get(), 1);
    }

    #[test]
    fn tables_in_which_nobody_counts_are_folded_and_what_they_hold_is_kept() {
        let (ledger, mut last) = ledger(&["a"]);
        // Something counts in the first one for as long as the process lives.
        let forever = last.shard();
        for _ in 0..100 {
            last.shard().requests(RouteId::new(0), OutcomeId::new(0)).bump();
            last = ledger.begin(names(&["a"]));
        }
        forever.requests(RouteId::new(0), OutcomeId::new(0)).bump();
        assert_eq!(count(&ledger.sum(), "a"), 101);
        assert!(ledger.tables().len() <= 4, "{}", ledger.tables().len());
    }

    #[test]
    fn what_belongs_to_no_configuration_is_one() {
        let (ledger, first) = ledger(&["a"]);
        let next = ledger.begin(names(&["b"]));
        first.control().breaker_open.set(1);
        assert_eq!((next.control().breaker_open.get(), ledger.sum().control().breaker_open.get()), (1, 1));
        assert_eq!(ledger.common().last_reload_ok.get(), 1);
    }
}
