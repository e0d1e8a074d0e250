//! TOML as the launcher reads it: keys in any case, unknown keys passed over, no types to declare.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Error;
use crate::text::quote;

/// A key and its string.
pub(crate) type KeyAndString = (Vec<u8>, Vec<u8>);

/// A file that was parsed.
pub(crate) struct Document<'i> {
    text: &'i [u8],
    root: DeTable<'i>,
}

impl<'i> Document<'i> {
    /// Parses a whole file.
    pub(crate) fn parse(text: &'i [u8]) -> Result<Self, Error> {
        let utf8 = str::from_utf8(text)
            .map_err(|error| error_at(text, error.valid_up_to(), "the text is not valid UTF-8"))?;
        let root = DeTable::parse(utf8)
            .map_err(|error| error_at(text, error.span().map_or(0, |span| span.start), error.message()))?;
        Ok(Self { text, root: root.into_inner() })
    }

    /// The table that is the whole file.
    pub(crate) fn root(&self) -> Table<'_, 'i> {
        Table { text: self.text, table: &self.root }
    }
}

/// One table of a file. A key that is asked for may be spelt in upper or lower case; the exact spelling comes first.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a, 'i> {
    text: &'i [u8],
    table: &'a DeTable<'i>,
}

impl<'a, 'i> Table<'a, 'i> {
    /// A string, empty if there is none.
    pub(crate) fn string(self, key: &str) -> Result<String, Error> {
        Ok(self.read(key, "a string", |value| value.as_str().map(ToString::to_string))?.unwrap_or_default())
    }

    /// `true` or `false`, the latter if there is neither.
    pub(crate) fn boolean(self, key: &str) -> Result<bool, Error> {
        Ok(self.read(key, "a boolean", DeValue::as_bool)?.unwrap_or_default())
    }

    /// An array of strings, empty if there is none.
    pub(crate) fn strings(self, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.read(key, "an array of strings", string_array)?.unwrap_or_default())
    }

    /// A string, as an array of one, or an array of strings; empty if there is neither.
    pub(crate) fn string_or_strings(self, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        let one_or_more = |value: &DeValue<'i>| match value.as_str() {
            Some(text) => Some(Vec::from([text.as_bytes().to_vec()])),
            None => string_array(value),
        };
        Ok(self.read(key, "a string or an array of strings", one_or_more)?.unwrap_or_default())
    }

    /// An array of tables, empty if there is none.
    pub(crate) fn tables(self, key: &str) -> Result<Vec<Table<'a, 'i>>, Error> {
        let tables = |value: &'a DeValue<'i>| {
            let tables = value.as_array()?.iter().map(|element| element.get_ref().as_table());
            tables.map(|table| Some(Table { text: self.text, table: table? })).collect()
        };
        Ok(self.read(key, "an array of tables", tables)?.unwrap_or_default())
    }

    /// Every key with its value, which must be a string.
    pub(crate) fn all_strings(self) -> Result<Vec<KeyAndString>, Error> {
        let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'i>>)| {
            let name: &str = AsRef::as_ref(name.get_ref());
            let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(name, "a string", value))?;
            Ok((name.as_bytes().to_vec(), text.as_bytes().to_vec()))
        };
        self.table.iter().map(entry).collect()
    }

    /// The value of a key as `read` takes it, which is `None` for one that is not what is expected.
    fn read<T>(
        self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'i>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let similar = || {
            self.table
                .iter()
                .find(|(name, _)| name.get_ref().eq_ignore_ascii_case(key))
                .map(|(_, value)| value)
        };
        let Some(value) = self.table.get(key).or_else(similar) else { return Ok(None) };
        read(value.get_ref()).map(Some).ok_or_else(|| self.wrong_type(key, expected, value))
    }

    fn wrong_type(self, key: &str, expected: &str, value: &Spanned<DeValue<'i>>) -> Error {
        let (key, found) = (quote(key.as_bytes()), value.get_ref().type_str());
        error_at(
            self.text,
            value.span().start,
            format_args!("{key} must be {expected}, but is of type {found}"),
        )
    }
}

fn string_array(value: &DeValue<'_>) -> Option<Vec<Vec<u8>>> {
    value.as_array()?.iter().map(|element| Some(element.get_ref().as_str()?.as_bytes().to_vec())).collect()
}

fn error_at(text: &[u8], offset: usize, message: impl core::fmt::Display) -> Error {
    let line = 1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count();
    Error::new(format_args!("toml: line {line}: {message}"))
}
