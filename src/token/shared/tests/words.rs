//! What one replica has purged and refused, every other one hears: once, in order, and also who was away.

use super::*;
use crate::session::SessionId;
use crate::token::shared::seal::Mark;

fn revoked(number: usize) -> Word {
    Word::RevokeSession(SessionId::new(&format!("sess_{number}")).unwrap())
}

/// It is said and heard.
async fn said() {
    sleep(Duration::from_secs(5)).await;
}

/// Fails where who has said it follows it too, or where it is followed twice.
#[tokio::test(start_paused = true)]
async fn what_one_has_done_all_others_hear_once_and_in_order() {
    let fleet = Fleet::new(3);
    let words: Vec<_> = (0..50).map(revoked).chain([Word::Purge(PurgeScope::All)]).collect();
    for word in &words {
        fleet.replicas[0].outbox.push(word.clone());
    }
    said().await;
    let heard =
        |replica: &Replica| replica.heard.lock().unwrap().iter().map(|(word, _)| word.clone()).collect::<Vec<_>>();
    assert_eq!(heard(&fleet.replicas[0]), []);
    assert!(fleet.replicas[1..].iter().all(|replica| heard(replica) == words));
    assert_eq!(fleet.replicas[1].counted(SharedOperation::Follow, SharedResult::Ok), 51);
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
    let stream = seal().stream();
    let own = fleet.store.read(&mut (), &stream, Place::default(), LIMIT).await.unwrap()[0].1.clone();
    let foreign =
        Seal::new(&cache_key(9), "mintgate:").seal_word(&[1; 16], &revoked(2).encode(fleet.clock.wall())).unwrap();
    let elsewhere =
        Seal::new(&cache_key(1), "other:").seal_word(&[1; 16], &revoked(2).encode(fleet.clock.wall())).unwrap();
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
