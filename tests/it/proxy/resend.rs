//! Upstream connections that die: what is sent again, what is not, and what never serves again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mintgate::lifecycle::Spawner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{PUBLIC, behind, get, in_front_of};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::{OK, Upstream};
use crate::support::wire::Wire;

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
}

/// The first connection serves one request, takes a second one and closes without a byte of an answer.
async fn dies_at_the_second() -> Upstream {
    Upstream::scripted(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.wire.send(OK).await;
            if visit.number == 0 {
                visit.request().await;
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_get_that_meets_a_dying_connection_is_served() {
    for request in [get("/", ""), "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()] {
        let (gateway, upstream) = in_front_of(dies_at_the_second().await, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.ask(get("/", "")).await;
        assert_eq!(client.ask(&request).await.outcome(), (200, ""));
        let requests = upstream.requests();
        assert_eq!((requests.len(), upstream.connections()), (3, 2));
        assert_eq!(requests[1].raw, requests[2].raw, "the same bytes once more");
    }
}

#[tokio::test]
async fn a_resend_does_not_wait_for_the_place_of_the_dead_connection() {
    let upstream = dies_at_the_second().await;
    let tables = format!(
        "[upstreams.up]\nurl = \"{}\"\npool = {{ max_connections = 1 }}\n\n\
         [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n",
        upstream.url()
    );
    let gateway = Gateway::start(tables).await;
    let mut client = Wire::connect(gateway.address).await;
    client.ask(get("/", "")).await;
    assert_eq!(client.ask(get("/", "")).await.outcome(), (200, ""));
    assert_eq!(upstream.connections(), 2);
}

/// The neighbours of a dead connection are as old as it was. Fails when a request is sent again on one of those.
#[tokio::test]
async fn a_resend_has_a_new_connection() {
    let (both, served) = (Arc::new(tokio::sync::Barrier::new(2)), Arc::new(Mutex::new(0)));
    let upstream = Upstream::scripted(move |mut visit| {
        let (both, served) = (Arc::clone(&both), Arc::clone(&served));
        async move {
            visit.request().await;
            if visit.number < 2 {
                both.wait().await;
            }
            visit.wire.send(OK).await;
            *served.lock().unwrap() += 1;
            // Takes one more and is gone.
            visit.request().await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut clients = [Wire::connect(gateway.address).await, Wire::connect(gateway.address).await];
    for client in &mut clients {
        client.send(get("/", "")).await;
    }
    for client in &mut clients {
        assert_eq!(client.response().await.outcome(), (200, ""));
    }
    assert_eq!(clients[0].ask(get("/", "")).await.outcome(), (200, ""));
    assert_eq!((upstream.count(), upstream.connections()), (4, 3));
}

/// Fails when PUT, or another of these, counts as one that may be repeated.
#[tokio::test]
async fn what_may_have_been_done_is_not_repeated() {
    let without_body = |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    let get_with_body = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned();
    let idle = ["DELETE", "PUT", "PATCH", "POST", "PROPFIND"].map(without_body);
    for request in idle.into_iter().chain([post("/"), get_with_body]) {
        let (gateway, upstream) = in_front_of(dies_at_the_second().await, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.ask(get("/", "")).await;
        assert_eq!(client.ask(&request).await.outcome(), (502, "upstream-broken"), "{request}");
        assert_eq!((upstream.count(), upstream.connections()), (2, 1), "{request}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_nobody_anything() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send(OK).await;
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    for request in [get("/", ""), post("/"), post("/"), get("/", "")] {
        assert_eq!(client.ask(request).await.outcome(), (200, ""));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((upstream.count(), upstream.connections()), (4, 4));
}

#[tokio::test]
async fn a_get_is_sent_again_once_and_not_for_ever() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    assert_eq!(client.ask(get("/", "")).await.outcome(), (502, "upstream-broken"));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.outcome(), (502, "upstream-broken"));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_cut_answer_is_cut_for_the_caller_and_its_connection_serves_no_more() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ] {
        let upstream = Upstream::scripted(move |mut visit| async move {
            visit.request().await;
            if visit.number == 0 {
                visit.wire.send(cut).await;
            } else {
                visit.wire.send(OK).await;
                visit.request().await;
            }
        })
        .await;
        let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
        let mut client = Wire::connect(gateway.address).await;
        client.send(get("/", "")).await;
        assert!(client.response_to("GET").await.is_err(), "{cut}");
        assert_eq!(Wire::connect(gateway.address).await.ask(get("/", "")).await.text(), "ok");
        assert_eq!(upstream.connections(), 2);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_takes_the_upstreams_connection_with_it() {
    let upstream = Upstream::scripted(|mut visit| async move {
        visit.request().await;
        if visit.number == 0 {
            visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
            // Nothing else may come on this connection.
            visit.request().await;
        } else {
            visit.wire.send(OK).await;
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send(get("/1", "")).await;
    client.response_head().await.unwrap();
    drop(client);
    assert_eq!(Wire::connect(gateway.address).await.ask(get("/2", "")).await.text(), "ok");
    assert_eq!((upstream.count(), upstream.connections()), (2, 2));
}

#[tokio::test]
async fn a_second_answer_is_nobodys() {
    let twice = format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged");
    let upstream = Upstream::scripted(move |mut visit| {
        let twice = twice.clone();
        async move {
            while visit.request().await.is_some() {
                visit.wire.send(if visit.number == 0 { &twice } else { OK }).await;
            }
        }
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    // Both at once, so that the second one comes as early as it can.
    client.send([get("/1", ""), get("/2", "")].concat()).await;
    for _ in 0..2 {
        assert_eq!(client.response().await.text(), "ok");
    }
    assert_eq!(upstream.connections(), 2);
}

/// Case 22. Defended more than once: beside the look at `is_whole` in `Finish::complete`, hyper says of a connection with
/// half a request on it that it is not ready, and closes it when the body breaks off. No one edit makes this fail.
#[tokio::test]
async fn an_early_answer_reaches_the_caller_and_half_a_request_is_not_followed_by_another() {
    let early = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
    let upstream = Upstream::scripted(move |mut visit| async move {
        if visit.number == 0 {
            // Reads the head alone, and later whatever comes.
            visit.wire.response_head().await.unwrap_err();
        }
        visit.wire.send(early).await;
        visit.wire.until_closed().await;
    })
    .await;
    let (gateway, upstream) = in_front_of(upstream, PUBLIC).await;
    let mut client = Wire::connect(gateway.address).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{}", "a".repeat(1000))).await;
    let answer = client.response().await;
    assert_eq!((answer.outcome(), answer.text()), ((413, ""), "no"));
    client.finish().await;
    let mut other = Wire::connect(gateway.address).await;
    other.send(get("/", "")).await;
    eventually("the next request opens its own connection", || upstream.connections() == 2).await;
}

#[tokio::test]
async fn an_upstream_connection_is_kept_after_a_whole_exchange() {
    let (gateway, upstream) = behind(PUBLIC).await;
    for request in [get("/", ""), post("/"), get("/", "")] {
        let mut client = Wire::connect(gateway.address).await;
        assert_eq!(client.ask(request).await.status(), 200);
    }
    assert_eq!((upstream.count(), upstream.connections()), (3, 1));
}

/// An HTTP/2 upstream whose first stream ends as the script says, once its head has come; the others are answered. Tells
/// each method and path that came.
async fn ends_the_first_stream(
    end: impl Fn(&mut h2::server::SendResponse<Bytes>) + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let (there, end) = (Arc::clone(&seen), Arc::new(end));
    drop(Spawner::current().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, end) = (Arc::clone(&there), Arc::clone(&end));
            drop(Spawner::current().spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let first = seen.lock().unwrap().is_empty();
                    seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
                    if first {
                        end(&mut respond);
                    } else {
                        respond.send_response(http::Response::new(()), true).unwrap();
                    }
                }
            }));
        }
    }));
    (address, seen)
}

#[tokio::test]
async fn a_stream_that_was_refused_unseen_is_sent_again_unless_its_body_is_gone() {
    let refused = |respond: &mut h2::server::SendResponse<Bytes>| respond.send_reset(h2::Reason::REFUSED_STREAM);
    let cancelled = |respond: &mut h2::server::SendResponse<Bytes>| respond.send_reset(h2::Reason::CANCEL);
    let empty_post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned();
    let delete = "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let broken = (502, "upstream-broken");
    for (request, after_refusal, after_cancel) in [
        (get("/x", ""), (200, ""), broken),
        (delete, (200, ""), broken),
        (empty_post, (200, ""), broken),
        (post("/x"), broken, broken),
    ] {
        for (refuses, outcome) in [(true, after_refusal), (false, after_cancel)] {
            let (address, seen) =
                if refuses { ends_the_first_stream(refused).await } else { ends_the_first_stream(cancelled).await };
            let tables = format!(
                "[upstreams.up]\nurl = \"http://{address}\"\nhttp2 = true\n\
                 [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n"
            );
            let gateway = Gateway::start(tables).await;
            let answer = Wire::connect(gateway.address).await.ask(&request).await;
            assert_eq!(answer.outcome(), outcome, "{request} refuses: {refuses}");
            let line = request.split(" HTTP").next().unwrap().to_owned();
            let times = if outcome.0 == 200 { 2 } else { 1 };
            assert_eq!(*seen.lock().unwrap(), vec![line; times], "{request} refuses: {refuses}");
        }
    }
}

/// A GOAWAY below a stream says that nobody has looked at it (RFC 9113 section 6.8); only one that ends the connection in
/// peace is believed. Fails when `was_refused` does not look at its reason.
#[tokio::test]
async fn a_stream_that_a_goaway_leaves_out_is_sent_again_unless_it_names_an_error() {
    for (reason, outcome, connections) in
        [(h2::Reason::NO_ERROR, (200, ""), 2), (h2::Reason::ENHANCE_YOUR_CALM, (502, "upstream-broken"), 1)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(0)));
        let there = Arc::clone(&count);
        drop(Spawner::current().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *there.lock().unwrap() += 1;
                let first = *there.lock().unwrap() == 1;
                drop(Spawner::current().spawn(async move {
                    if first {
                        leaves_the_first_stream_out(stream, reason).await;
                    } else {
                        let mut connection = h2::server::handshake(stream).await.unwrap();
                        while let Some(Ok((_, mut respond))) = connection.accept().await {
                            respond.send_response(http::Response::new(()), true).unwrap();
                        }
                    }
                }));
            }
        }));
        let tables = format!(
            "[upstreams.up]\nurl = \"http://{address}\"\nhttp2 = true\n\
             [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n"
        );
        let gateway = Gateway::start(tables).await;
        let delete = "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(Wire::connect(gateway.address).await.ask(delete).await.outcome(), outcome, "{reason:?}");
        assert_eq!(*count.lock().unwrap(), connections, "{reason:?}");
    }
}

/// Answers a head with a GOAWAY whose last stream is 0, and then reads what comes.
async fn leaves_the_first_stream_out(mut stream: TcpStream, reason: h2::Reason) {
    const HEADERS: u8 = 1;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    let goaway = [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &[0; 4], &u32::from(reason).to_be_bytes()].concat();
    stream.write_all(&goaway).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_stream_that_is_refused_again_is_not_sent_for_ever() {
    let refused = |respond: &mut h2::server::SendResponse<Bytes>| respond.send_reset(h2::Reason::REFUSED_STREAM);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(0)));
    let there = Arc::clone(&count);
    drop(Spawner::current().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&there);
            drop(Spawner::current().spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    *count.lock().unwrap() += 1;
                    refused(&mut respond);
                }
            }));
        }
    }));
    let tables = format!(
        "[upstreams.up]\nurl = \"http://{address}\"\nhttp2 = true\n\
         [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n"
    );
    let gateway = Gateway::start(tables).await;
    let answer = Wire::connect(gateway.address).await.ask(get("/", "")).await;
    assert_eq!((answer.outcome(), *count.lock().unwrap()), ((502, "upstream-broken"), 2));
}

/// Until the peer has said how many streams it takes, it is asked for one: it would refuse the others, and a body that
/// has begun to pass cannot be sent again. Fails without `initial_max_send_streams(1)`.
#[tokio::test]
async fn no_body_is_lost_to_a_peer_that_takes_one_stream_at_a_time() {
    const ASKED: usize = 5;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go, gone) = tokio::sync::watch::channel(false);
    drop(Spawner::current().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut gone = gone.clone();
            drop(Spawner::current().spawn(async move {
                let _ = gone.wait_for(|gone| *gone).await;
                let builder = h2::server::Builder::new().max_concurrent_streams(1).handshake::<_, Bytes>(stream);
                let mut connection = builder.await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
            }));
        }
    }));
    let tables = format!(
        "[upstreams.up]\nurl = \"http://{address}\"\nhttp2 = true\npool = {{ max_connections = 1 }}\n\
         [[routes]]\nname = \"all\"\nupstream = \"up\"\nsession = []\n"
    );
    let gateway = Gateway::start(tables).await;
    let mut clients = Vec::new();
    for _ in 0..ASKED {
        let mut client = Wire::connect(gateway.address).await;
        client.send(post("/")).await;
        clients.push(client);
    }
    // Long enough for all of them to be on their way; whether they are changes nothing where this holds.
    tokio::time::sleep(Duration::from_millis(200)).await;
    go.send(true).unwrap();
    for client in &mut clients {
        assert_eq!(client.response().await.outcome(), (200, ""));
    }
}
