//! One of several things, as a map with one key: its name. Serde's own enums refuse a name that
//! they do not know as they refuse damage; this reads it as `Unknown`.

/// Defines an enumeration whose bytes are `{name: content}`.
macro_rules! one_of {
    ($(#[$meta:meta])* $name:ident { $($variant:ident($inner:ty) = $key:literal,)* }) => {
        $(#[$meta])*
        pub(crate) enum $name {
            $($variant($inner),)*
            /// Of a later release; never written.
            Unknown,
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(inner) => to.collect_map([($key, inner)]),)*
                    Self::Unknown => Err(serde::ser::Error::custom("a thing that is not known here")),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct OneKey;
                impl<'de> serde::de::Visitor<'de> for OneKey {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a map with one key")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let several = || serde::de::Error::custom("not one key");
                        let key: String = map.next_key()?.ok_or_else(several)?;
                        let value = match key.as_str() {
                            $($key => $name::$variant(map.next_value()?),)*
                            _ => map.next_value::<serde::de::IgnoredAny>().map(|_| $name::Unknown)?,
                        };
                        let more = map.next_key::<serde::de::IgnoredAny>()?;
                        if more.is_some() { Err(several()) } else { Ok(value) }
                    }
                }
                from.deserialize_map(OneKey)
            }
        }
    };
}
