//! The status page: one file of HTML with its style and its script, which asks nobody but this listener.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Digest;

/// The whole page.
pub(super) const HTML: &str = include_str!("page.html");

/// What a browser may do with it: run the one script and use the one style, which it knows by their hashes, and ask this
/// listener. No script may make markup out of text (Trusted Types), nobody may frame it.
pub(super) fn policy() -> String {
    let (script, style) = (source("script"), source("style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// The one element of this name, as a source. `'none'` where the page has none or several: then it does not run, which a
/// test sees.
fn source(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = HTML.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
    match inner {
        Some((text, rest)) if !rest.contains(&format!("<{element}")) => {
            format!("'sha256-{}'", STANDARD.encode(Digest::of(text.as_bytes()).as_bytes()))
        }
        _ => "'none'".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where the policy allows what it does not know, such as `'unsafe-inline'`.
    #[test]
    fn the_one_script_and_the_one_style_may_be_used_and_nothing_else() {
        let policy = policy();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(policy.contains("style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
        assert!(HTML.len() < 64 * 1024, "{} bytes", HTML.len());
    }

    /// Text becomes text: what a configuration or an issuer says is never read as markup, and nothing is asked of anybody
    /// else.
    #[test]
    fn the_page_makes_no_markup_and_names_no_other_host() {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "srcdoc",
            "eval(",
            "new Function",
            "javascript:",
            " style=",
            " onclick",
            " onload",
            " onerror",
            "@import",
            "url(",
            "https:",
            "importScripts",
            "localStorage",
            "document.cookie",
            "setHTMLUnsafe",
        ] {
            assert!(!HTML.contains(word), "{word}");
        }
        // The namespace of SVG is a name and no address.
        assert_eq!(HTML.matches("http:").count(), HTML.matches("http://www.w3.org/2000/svg").count());
    }
}
