//! Finding the route of a request among one and among a thousand.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use http::Method;
use mintgate::metrics::ListenerId;

use crate::world::{Room, World};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routing");
    for routes in [1, 1000] {
        let world = World::new(Room { routes, ..Room::default() });
        let router = &world.gateway.plans.router;
        let find = |path: &str| router.find(ListenerId::new(0), "api.example.com", black_box(path), &Method::GET);
        let (first, last, none) = ("/r0/todos/17", format!("/r{}/todos/17", routes - 1), "/none/todos/17");
        assert!(find(first).is_ok() && find(&last).is_ok() && find(none).is_err());
        for (what, path) in [("first", first), ("last", &last), ("none", none)] {
            group.bench_with_input(BenchmarkId::new(what, routes), path, |bencher, path| bencher.iter(|| find(path)));
        }
    }
    group.finish();
}
