//! SQL functions that Strongroom adds: the parameters of a request URI (`uri_param`, `uri_params`)
//! and the last element of a list (`last_of`). `date_trunc` has a module of its own.
//!
//! Invariant: whatever a client put in a URI, the functions for its parameters return text or null
//! and never fail. A pair that the API server drops is ignored, and bytes that are not UTF-8 become
//! U+FFFD.

use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::{Array, ArrayRef, ListArray, StringViewArray, UInt32Array};
use arrow_schema::DataType;
use datafusion::arrow::compute::take;
use datafusion::common::cast::{as_list_array, as_string_view_array};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use strongroom_schemas::uri::is_read_pair;
use url::form_urlencoded;

use crate::date_trunc::date_trunc;

pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(UriParameter::new("uri_param", Wanted::First))),
        Arc::new(ScalarUDF::new_from_impl(UriParameter::new("uri_params", Wanted::All))),
        last_of(),
        date_trunc(),
    ]
}

pub(crate) const LAST_OF: &str = "last_of";

/// `last_of(list)`: the last element, null for an empty or a null list.
pub(crate) fn last_of() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(LastOf { signature: Signature::array(Volatility::Immutable) }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// The parameter's first value.
    First,
    /// All values of the parameter as a command line: joined by spaces, each quoted if a shell
    /// would need it.
    All,
}

/// `uri_param(uri, name)` returns the first decoded value of a query parameter, `uri_params(uri,
/// name)` all of its values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UriParameter {
    name: &'static str,
    wanted: Wanted,
    signature: Signature,
}

impl UriParameter {
    fn new(name: &'static str, wanted: Wanted) -> Self {
        let strings = vec![DataType::Utf8View, DataType::Utf8View];
        UriParameter { name, wanted, signature: Signature::exact(strings, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for UriParameter {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [uris, names] = arrays.as_slice() else {
            return exec_err!("{}() takes a URI and the name of a parameter", self.name);
        };
        let (uris, names) = (as_string_view_array(uris)?, as_string_view_array(names)?);
        let mut values = StringViewBuilder::with_capacity(uris.len());
        for (uri, name) in uris.iter().zip(names.iter()) {
            match (uri, name) {
                (Some(uri), Some(name)) => values.append_option(parameter(uri, name, self.wanted)),
                _ => values.append_null(),
            }
        }
        let values: StringViewArray = values.finish();
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

fn parameter(uri: &str, name: &str, wanted: Wanted) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let mut values = query
        .split('&')
        .filter(|pair| is_read_pair(pair))
        .flat_map(|pair| form_urlencoded::parse(pair.as_bytes()))
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    match wanted {
        Wanted::First => values.next(),
        Wanted::All => values.map(shell_word).reduce(|line, word| line + " " + &word),
    }
}

/// `value` as one word of a shell command line.
fn shell_word(value: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value;
    }
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// The function that [`last_of`] returns. It reads only the offsets of a list and copies the views
/// of its elements, while DataFusion's `array_element` builds each value again.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LastOf {
    signature: Signature,
}

impl ScalarUDFImpl for LastOf {
    fn name(&self) -> &str {
        LAST_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(item)] => Ok(item.data_type().clone()),
            _ => exec_err!("last_of() takes a list"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [lists] = arrays.as_slice() else {
            return exec_err!("last_of() takes a list");
        };
        Ok(ColumnarValue::Array(last_elements(as_list_array(lists)?)?))
    }
}

fn last_elements(lists: &ListArray) -> Result<ArrayRef> {
    let ends = lists.offsets().windows(2).enumerate().map(|(row, bounds)| {
        (bounds[1] > bounds[0] && lists.is_valid(row))
            .then(|| u32::try_from(bounds[1] - 1).expect("list offsets are not negative"))
    });
    Ok(take(lists.values(), &UInt32Array::from_iter(ends), None)?)
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{ListBuilder, StringBuilder};

    use super::*;

    #[test]
    fn commands_are_decoded_and_quoted() {
        let uri =
            "/api/v1/namespaces/a/pods/p/exec?command=sh&command=-c&command=cat+%2Fetc%2Fpasswd&container=c";
        assert_eq!(parameter(uri, "command", Wanted::All).as_deref(), Some("sh -c 'cat /etc/passwd'"));
        assert_eq!(parameter(uri, "container", Wanted::First).as_deref(), Some("c"));
        assert_eq!(parameter(uri, "stdin", Wanted::First), None);
        assert_eq!(parameter("/version", "command", Wanted::All), None);
        assert_eq!(
            parameter("/x?command=it%27s&command=", "command", Wanted::All).as_deref(),
            Some("'it'\\''s' ''")
        );
        assert_eq!(
            parameter("/x?command=%ff#command=no", "command", Wanted::All).as_deref(),
            Some("'\u{fffd}'")
        );
        for dropped in ["command=true;", "command=%ZZ", "command=%4"] {
            let uri = format!("/x?{dropped}&command=sh");
            assert_eq!(parameter(&uri, "command", Wanted::All).as_deref(), Some("sh"), "{uri}");
        }
    }

    #[test]
    fn the_last_element_is_null_where_there_is_none() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), Some("b")]);
        lists.append_value([None::<&str>; 0]);
        lists.append_null();
        lists.append_value([Some("c"), None]);
        lists.append_value([Some("d")]);
        let lists = lists.finish();
        let last = |lists: &ListArray| {
            let last = last_elements(lists).expect("strings");
            let last = last.as_any().downcast_ref::<arrow_array::StringArray>().expect("strings").clone();
            last.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
        };
        let all = [Some("b"), None, None, None, Some("d")].map(|value| value.map(str::to_owned));
        assert_eq!(last(&lists), all);
        assert_eq!(last(&lists.slice(2, 3)), all[2..]);
    }
}
