//! What is done with the `connection_init` of a WebSocket, the first message of GraphQL's protocols.

/// What is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInit {
    /// Where the session token stands that the tunnel waits for; `None`: the session is the upgrade's.
    pub session: Option<InPayload>,
    /// Where the minted token is put.
    pub token: InPayload,
    /// Which of the route's injections that token is.
    pub injection: usize,
}

/// A place in the payload of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPayload {
    /// The names of the objects around the value, from the payload inwards, and then its own; never empty.
    pub steps: Vec<String>,
    /// Stands before the token.
    pub prefix: String,
}
