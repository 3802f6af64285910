//! Cleaning a request's headers, with one route and with a thousand that inject under names of their own.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion};
use http::{HeaderMap, HeaderName, HeaderValue};
use mintgate::proxy::clean::Consumed;

use crate::world::{Room, World, request};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clean");
    for routes in [1, 1000] {
        let world = World::new(Room { routes, ..Room::default() });
        let cleaner = &world.gateway.plans.routes[0].cleaner;
        let usual = request(&world.credential()).headers().clone();
        // A header that no route injects and that is as long as those that they do, with the same first letter.
        let mut alike = usual.clone();
        alike.insert(HeaderName::from_static("x-user-ip-7"), HeaderValue::from_static("192.0.2.1"));
        for (what, headers) in [("usual", &usual), ("alike", &alike)] {
            group.bench_with_input(BenchmarkId::new(what, routes), headers, |bencher, headers: &HeaderMap| {
                let clean = |mut headers: HeaderMap| {
                    cleaner.request(&mut headers, &Consumed::Authorization, false).unwrap();
                    black_box(headers)
                };
                bencher.iter_batched(|| headers.clone(), clean, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}
