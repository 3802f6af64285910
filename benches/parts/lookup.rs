//! Looking up a session by its credential's tag, and a token by its key, among few and many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use mintgate::metrics::CacheName;
use mintgate::session::tag::Tag;

use crate::world::{Dice, Room, World, write};

pub(crate) fn bench(criterion: &mut Criterion, sizes: &[usize]) {
    let mut group = criterion.benchmark_group("lookup");
    for &size in sizes {
        // A million callers take seconds and gigabytes: only for whom it is asked for.
        let mut world = None;
        for part in ["session", "token"] {
            group.bench_with_input(BenchmarkId::new(part, size), &size, |bencher, &size| {
                let known = &*world.get_or_insert_with(|| Known::new(size));
                let mut dice = Dice::new(7);
                match part {
                    "session" => bencher.iter(|| known.session(dice.roll(size))),
                    _ => bencher.iter(|| known.token(dice.roll(size))),
                }
            });
        }
    }
    group.finish();
}

/// Callers in memory, and what finds them.
pub(crate) struct Known {
    pub(crate) world: World,
    tags: Vec<Tag>,
    keys: Vec<mintgate::token::TokenKey>,
}

impl Known {
    pub(crate) fn new(size: usize) -> Self {
        let world = World::new(Room::default());
        world.populate(size);
        let mut credential = world.credential();
        let tags: Vec<Tag> = (0..size)
            .map(|caller| {
                write(&mut credential, caller);
                world.gateway.sessions.memory.tag(&credential)
            })
            .collect();
        let sessions = &world.gateway.sessions;
        let found = |tag: &Tag| sessions.memory.get(*tag, world.gateway.number, &sessions.jwks).unwrap();
        let keys = tags.iter().map(|tag| world.key(&found(tag)).clone()).collect();
        Self { world, tags, keys }
    }

    /// Callers.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What the sessions and the tokens weigh, in MiB.
    pub(crate) fn weights(&self) -> (u64, u64) {
        let gateway = &self.world.gateway;
        gateway.tokens.observe();
        let tokens = self.world.metrics.control().cache_bytes(CacheName::Tokens).get();
        (gateway.sessions.memory.bytes() >> 20, u64::try_from(tokens).unwrap() >> 20)
    }

    /// One look-up by a tag.
    pub(crate) fn session(&self, caller: usize) {
        let (gateway, tag) = (&self.world.gateway, self.tags[caller]);
        black_box(gateway.sessions.memory.get(tag, gateway.number, &gateway.sessions.jwks).unwrap());
    }

    /// One look-up by a token's key.
    pub(crate) fn token(&self, caller: usize) {
        let now = self.world.clock.now();
        black_box(self.world.gateway.tokens.get_fresh(&self.keys[caller], now).unwrap());
    }

    /// Both, as a request does them: what the session holds finds its token.
    pub(crate) fn both(&self, caller: usize) {
        let (world, gateway) = (&self.world, &self.world.gateway);
        let now = world.clock.now();
        let found = gateway.sessions.memory.get(self.tags[caller], gateway.number, &gateway.sessions.jwks);
        let found = found.unwrap();
        black_box(gateway.tokens.get_fresh(world.key(&found), now).unwrap());
    }
}
