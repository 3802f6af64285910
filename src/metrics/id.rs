//! Indices into the tables of names: fixed when routes are built, so that counting looks nothing up.

/// Declares an index into a table of names.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u16);

        impl $name {
            /// The id of the `index`th name.
            ///
            /// # Panics
            /// Beyond 65535, which no configuration reaches.
            pub fn new(index: usize) -> Self {
                Self(u16::try_from(index).expect("a configuration has fewer than 65536 of a kind"))
            }

            /// The position in its table.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

id!(
    /// A route; the id after the last one stands for "no route".
    RouteId
);
id!(
    /// A JWT template that some route names; the id after the last one stands for any other.
    TemplateId
);
id!(
    /// An upstream.
    UpstreamId
);
id!(
    /// A data listener.
    ListenerId
);
id!(
    /// How a request ended: an upstream's status class or one of our own codes.
    OutcomeId
);
