//! Tables whose rows are what there is to know of a thing, and references to a row that stand for
//! its name.

/// The rows of a table by name, their list, and what a reference to a row can do: it is compared,
/// shown and written as its name, and read by looking that name up.
macro_rules! table {
    (
        $Thing:ident($Row:ident), $unknown:literal;
        $($(#[doc = $doc:literal])* $id:ident: $row:expr,)*
    ) => {
        impl $Thing {
            $($(#[doc = $doc])* pub const $id: Self = Self(&$row);)*

            /// All that the table has.
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// One that is not in the table: for tests of what reads rows.
            pub const fn of(row: &'static $Row) -> Self {
                Self(row)
            }

            /// What there is to know of it.
            pub fn row(self) -> &'static $Row {
                self.0
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                self.0.name
            }

            /// The one of that name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|thing| thing.name() == name)
            }
        }

        impl PartialEq for $Thing {
            fn eq(&self, other: &Self) -> bool {
                self.name() == other.name()
            }
        }

        impl Eq for $Thing {}

        impl std::hash::Hash for $Thing {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.name().hash(state);
            }
        }

        impl PartialOrd for $Thing {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $Thing {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.name().cmp(other.name())
            }
        }

        impl std::fmt::Debug for $Thing {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::fmt::Display for $Thing {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $Thing {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $Thing {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = String::deserialize(from)?;
                // Never the name itself: an error must not repeat what a stranger sent.
                Self::named(&name).ok_or_else(|| serde::de::Error::custom($unknown))
            }
        }
    };
}
