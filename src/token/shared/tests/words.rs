//! What one replica has purged and refused, every other one hears: once, in order, and also who was away.

use super::*;
use crate::session::SessionId;
use crate::token::shared::seal::{Channel, Mark};

fn revoked(number: usize) -> Word {
    Word::RevokeSession(SessionId::new(&format!("sess_{number}")).unwrap())
}

fn purged(number: usize) -> Word {
    Word::Purge(PurgeScope::Session(SessionId::new(&format!("sess_{number}")).unwrap()))
}

/// It is said and heard.
async fn said() {
    sleep(Duration::from_secs(5)).await;
}

/// Refusals and purges are in order each. Fails where who has said it follows it too, or where it is followed twice.
#[tokio::test(start_paused = true)]
async fn what_one_has_done_all_others_hear_once_and_in_order() {
    let fleet = Fleet::new(3);
    for number in 0..50 {
        fleet.replicas[0].outbox.push(revoked(number));
        fleet.replicas[0].outbox.push(purged(number));
    }
    said().await;
    let heard = |replica: &Replica| {
        let heard = replica.heard.lock().unwrap().clone();
        let (purges, refusals): (Vec<_>, Vec<_>) =
            heard.into_iter().map(|(word, _)| word).partition(|word| matches!(word, Word::Purge(_)));
        (refusals, purges)
    };
    assert_eq!(heard(&fleet.replicas[0]), (Vec::new(), Vec::new()));
    let all: (Vec<_>, Vec<_>) = ((0..50).map(revoked).collect(), (0..50).map(purged).collect());
    for replica in &fleet.replicas[1..] {
        assert_eq!(heard(replica), all);
    }
    assert_eq!(fleet.replicas[1].counted(SharedOperation::Follow, SharedResult::Ok), 100);
}

/// Fails where a gateway begins at the end of the stream, or takes an old word for a new one.
#[tokio::test(start_paused = true)]
async fn who_starts_hears_whom_to_refuse_and_since_when() {
    let fleet = Fleet::new(1);
    fleet.replicas[0].outbox.push(revoked(1));
    said().await;
    sleep(Duration::from_hours(6 * 24)).await;
    fleet.replicas[0].outbox.push(revoked(2));
    said().await;
    let late = fleet.fresh();
    said().await;
    let heard = late.heard.lock().unwrap().clone();
    assert_eq!(heard.iter().map(|(word, _)| word.clone()).collect::<Vec<_>>(), [revoked(1), revoked(2)]);
    let (first, second) = (heard[0].1.as_secs(), heard[1].1.as_secs());
    assert!((first.abs_diff(6 * 86_400) <= 10) && second <= 10, "{first} {second}");
    sleep(Duration::from_hours(2 * 24)).await;
    let later = fleet.fresh();
    said().await;
    assert_eq!(later.heard.lock().unwrap().len(), 1, "the first one is about nothing that is left");
}

/// Fails where a lost connection is not made anew, or where it is read on from behind what was missed.
#[tokio::test(start_paused = true)]
async fn who_was_away_catches_up_and_follows_nothing_twice() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    for (round, mood) in [Mood::Lost, Mood::Hangs].into_iter().enumerate() {
        one.outbox.push(revoked(round * 10));
        said().await;
        other.wire.feel(mood);
        said().await;
        for number in 1..5 {
            one.outbox.push(revoked(round * 10 + number));
            said().await;
        }
        assert_eq!(other.heard.lock().unwrap().len(), round * 5 + 1, "{mood:?}");
        other.wire.feel(Mood::Well);
        said().await;
        assert_eq!(other.heard.lock().unwrap().len(), round * 5 + 5, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_told_when_the_store_is_back() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    one.wire.feel(Mood::Lost);
    for number in 0..5 {
        one.outbox.push(revoked(number));
    }
    sleep(Duration::from_mins(5)).await;
    assert!(!one.outbox.is_empty() && other.heard.lock().unwrap().is_empty());
    one.wire.feel(Mood::Well);
    said().await;
    assert!(one.outbox.is_empty());
    let heard: Vec<_> = other.heard.lock().unwrap().iter().map(|(word, _)| word.clone()).collect();
    assert_eq!(heard, (0..5).map(revoked).collect::<Vec<_>>());
}

/// A store that has lost its stream, and counts from the beginning. Fails where it is read on from the place in the old one.
#[tokio::test(start_paused = true)]
async fn a_stream_that_was_lost_and_begun_anew_is_heard() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    for number in 0..5 {
        one.outbox.push(revoked(number));
    }
    said().await;
    other.wire.feel(Mood::Lost);
    said().await;
    fleet.store.flush();
    one.outbox.push(revoked(7));
    said().await;
    other.wire.feel(Mood::Well);
    said().await;
    assert_eq!(other.heard.lock().unwrap().last().unwrap().0, revoked(7));
}

/// Fails without the seal, its stream in it, or the memory of what was followed.
#[tokio::test(start_paused = true)]
async fn a_planted_or_repeated_word_is_not_followed() {
    let fleet = Fleet::new(2);
    let [one, other] = &fleet.replicas[..] else { panic!() };
    one.outbox.push(revoked(1));
    said().await;
    let stream = seal().stream(Channel::Refusals);
    let own = fleet.store.read(&mut (), &stream, Place::default(), LIMIT).await.unwrap()[0].1.clone();
    let foreign = Seal::new(&cache_key(9), "mintgate:")
        .seal_word(Channel::Refusals, &[1; 16], &revoked(2).encode(fleet.clock.wall()))
        .unwrap();
    let elsewhere = Seal::new(&cache_key(1), "other:")
        .seal_word(Channel::Refusals, &[1; 16], &revoked(2).encode(fleet.clock.wall()))
        .unwrap();
    let mut another_mark = own.clone();
    another_mark[..size_of::<Mark>()].fill(7);
    let mut cut = own.clone();
    cut.truncate(own.len() - 1);
    let planted = [own, foreign, elsewhere, another_mark, cut, Vec::new()];
    for entry in &planted {
        fleet.store.append(&stream, entry).await.unwrap();
    }
    said().await;
    assert_eq!(other.heard.lock().unwrap().len(), 1);
    assert_eq!(other.counted(SharedOperation::Follow, SharedResult::Unreadable), 5);
}

/// Each of two keys has a stream of its own: whoever leads with either is heard by who knows both.
#[tokio::test(start_paused = true)]
async fn while_keys_are_rotated_everybody_is_heard() {
    let fleet = Fleet::new(0);
    let replica = |key, previous| Replica::of(&fleet.store, &fleet.issuer, fleet.clock.clone(), &shared(key, previous));
    let [learning, leading] = [replica(1, Some(2)), replica(2, Some(1))];
    learning.outbox.push(revoked(1));
    leading.outbox.push(revoked(2));
    said().await;
    let heard =
        |replica: &Replica| replica.heard.lock().unwrap().iter().map(|(word, _)| word.clone()).collect::<Vec<_>>();
    assert_eq!((heard(&learning), heard(&leading)), (vec![revoked(2)], vec![revoked(1)]));
}

/// Fails where purges and revocations share a stream: the two together exceed what it keeps.
#[tokio::test(start_paused = true)]
async fn a_flood_of_purges_pushes_no_revocation_out() {
    let fleet = Fleet::new(1);
    fleet.replicas[0].outbox.push(revoked(1));
    for number in 0..50 {
        fleet.replicas[0].outbox.push(purged(number));
    }
    said().await;
    let count = async |channel| {
        let stream = seal().stream(channel);
        fleet.store.read(&mut (), &stream, Place::default(), LIMIT).await.unwrap().len()
    };
    assert_eq!((count(Channel::Refusals).await, count(Channel::Purges).await), (1, 50));
}

/// Fails where a gateway that starts reads purges from the beginning, and where it misses those of the time that its first
/// connection took.
#[tokio::test(start_paused = true)]
async fn who_starts_hears_of_purges_from_then_on() {
    let fleet = Fleet::new(1);
    let one = &fleet.replicas[0];
    one.outbox.push(purged(1));
    one.outbox.push(revoked(2));
    sleep(Duration::from_mins(5)).await;
    let late = fleet.fresh();
    late.wire.feel(Mood::Lost);
    said().await;
    one.outbox.push(purged(3));
    sleep(Duration::from_secs(3)).await;
    one.outbox.push(purged(5));
    sleep(Duration::from_secs(3)).await;
    late.wire.feel(Mood::Well);
    sleep(Duration::from_secs(10)).await;
    one.outbox.push(purged(4));
    said().await;
    let heard: Vec<_> = late.heard.lock().unwrap().iter().map(|(word, _)| word.clone()).collect();
    let purges: Vec<_> = heard.iter().filter(|word| matches!(word, Word::Purge(_))).cloned().collect();
    assert_eq!(purges, [purged(3), purged(5), purged(4)]);
    assert!(heard.contains(&revoked(2)));
}

/// A level that takes another one's place: what is in memory is no younger for that. Fails where it is taken for young.
#[tokio::test(start_paused = true)]
async fn who_changes_its_store_hears_the_purges_that_concern_its_memory() {
    let fleet = Fleet::new(1);
    sleep(Duration::from_hours(9)).await;
    fleet.replicas[0].outbox.push(purged(1));
    sleep(Duration::from_hours(2)).await;
    for number in [2, 3] {
        fleet.replicas[0].outbox.push(purged(number));
        sleep(Duration::from_mins(15)).await;
    }
    let (heard, one) = (Heard::default(), &fleet.replicas[0]);
    let counts = one.metrics.control().common();
    let means = Means { clock: fleet.clock.clone(), tasks: Spawner::current(), counts };
    let level = Level::new(Arc::clone(&one.wire), &shared(1, None), Duration::from_secs(5), means);
    let hears = Arc::clone(&heard);
    let hear = Hear::by(move |word, age| hears.lock().unwrap().push((word.clone(), age)));
    drop(follow::begin(&level, Duration::from_hours(1), &hear, &Spawner::current()));
    said().await;
    let heard: Vec<_> = heard.lock().unwrap().iter().map(|(word, _)| word.clone()).collect();
    assert_eq!(heard, [purged(2), purged(3)]);
}

/// Fails where it is said before all words were heard.
#[tokio::test(start_paused = true)]
async fn who_starts_knows_when_it_has_heard_whom_to_refuse() {
    let fleet = Fleet::new(1);
    for number in 0..50 {
        fleet.replicas[0].outbox.push(revoked(number));
    }
    said().await;
    let late = fleet.fresh();
    late.wire.feel(Mood::Slow(Duration::from_millis(20)));
    let caught_up = late.caught_up.lock().unwrap().take().unwrap();
    assert!(late.heard.lock().unwrap().is_empty());
    assert!(caught_up.within(Duration::from_secs(5)).await);
    assert_eq!(late.heard.lock().unwrap().len(), 50);
    // Where there is nothing, that is known too.
    let empty = Fleet::new(1);
    let caught_up = empty.replicas[0].caught_up.lock().unwrap().take().unwrap();
    let begun = Instant::now();
    assert!(caught_up.within(Duration::from_secs(5)).await && begun.elapsed().as_millis() == 0);
}

/// Fails where a store that is down, or that hangs, is waited for without end.
#[tokio::test(start_paused = true)]
async fn who_starts_without_a_store_waits_for_nobody() {
    for (mood, most) in [(Mood::Lost, 0), (Mood::Hangs, 2000), (Mood::Slow(Duration::from_secs(9)), 2000)] {
        let fleet = Fleet::new(1);
        let begun = Instant::now();
        fleet.replicas[0].wire.feel(mood);
        let caught_up = fleet.replicas[0].caught_up.lock().unwrap().take().unwrap();
        assert!(caught_up.within(Duration::from_secs(5)).await);
        assert!(begun.elapsed().as_millis() <= most + 5, "{mood:?} {:?}", begun.elapsed());
    }
    let (_behind, caught_up) = follow::CaughtUp::never();
    assert!(!caught_up.within(Duration::from_secs(5)).await);
}
