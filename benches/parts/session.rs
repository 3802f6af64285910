//! From a credential to a verified session: remembered, and verified anew.

use std::hint::black_box;

use criterion::Criterion;
use futures_util::FutureExt as _;
use mintgate::session::credential::{Credential, Place};

use crate::world::{Room, World, write};

/// Credentials in turn, as in the peers' comparison.
const CALLERS: usize = 1000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    let world = World::new(Room::default());
    let mut credential = world.credential();
    for caller in 0..CALLERS {
        world.remember(caller, &mut credential);
    }
    let mut caller = 0;
    group.bench_function("warm", |bencher| {
        bencher.iter(|| {
            caller = (caller + 1) % CALLERS;
            write(&mut credential, caller);
            verify(&world, &credential);
        });
    });
    // A memory too small for a single session: each credential is verified anew.
    let forgetful = World::new(Room { session_bytes: 1, ..Room::default() });
    group.bench_function("cold", |bencher| bencher.iter(|| verify(&forgetful, &forgetful.signed)));
    group.finish();
}

fn verify(world: &World, token: &str) {
    let (gateway, mut now) = (&world.gateway, world.clock.now());
    let credential = Credential { token: token.into(), place: Place::Bearer };
    let tag = gateway.sessions.memory.tag(token);
    let verified = gateway.verify(&credential, tag, &gateway.plans.routes[0], &world.clock, &mut now).now_or_never();
    black_box(verified.unwrap().unwrap());
}
