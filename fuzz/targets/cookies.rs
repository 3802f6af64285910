//! Cookie lines against a slow reading: the same pairs; of Clerk's cookies none survives but the kept one; of the others
//! none is lost or changed.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use mintgate::session::cookies;
use mintgate_fuzz::{Cookie, cookies as slow, is_clerk, is_something};

fn read(headers: &HeaderMap) -> Vec<Cookie> {
    headers.get_all(header::COOKIE).iter().flat_map(|line| slow(line.as_bytes())).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::COOKIE, value);
        }
    }
    let before = read(&headers);
    let pairs: Vec<Cookie> = cookies::pairs(&headers).map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
    assert_eq!(pairs, before);
    for keep in [None, Some(&b"__session"[..])] {
        let mut after = headers.clone();
        let stays = |name: &[u8]| !is_clerk(name) || Some(name) == keep;
        let changed = cookies::strip_clerk(&mut after, keep);
        assert_eq!(changed, !before.iter().all(|(name, _)| stays(name)));
        if !changed {
            assert_eq!(after, headers);
        }
        let expected: Vec<_> = before.iter().filter(|(name, _)| stays(name)).cloned().filter(is_something).collect();
        let left: Vec<_> = read(&after).into_iter().filter(is_something).collect();
        assert_eq!(left, expected);
    }
});
