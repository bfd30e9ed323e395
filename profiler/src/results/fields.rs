//! Reading named fields out of an object or a table's row, with errors that name the field.

use serde_json::{Map, Value};

/// The largest whole number of which a float still knows every digit.
const LARGEST_COUNT: f64 = 9_007_199_254_740_992.0;

/// Larger than any figure of a benchmark, and small enough that products of a few stay finite.
const LARGEST: f64 = 1e30;

/// The fields of one row.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// How the form is called in messages.
    pub(super) form: &'static str,
    pub(super) object: &'a Map<String, Value>,
    /// What was left out though the file has it.
    pub(super) remarks: Vec<String>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(form: &'static str, object: &'a Map<String, Value>) -> Fields<'a> {
        Fields {
            form,
            object,
            remarks: Vec::new(),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The value, unless it is null, empty, or the dash that tables put where nothing was measured.
    fn value(&self, key: &str) -> Option<&'a Value> {
        match self.object.get(key)? {
            Value::Null => None,
            Value::String(text) if matches!(text.trim(), "" | "-" | "None" | "null") => None,
            value => Some(value),
        }
    }

    /// A text, or anything else as its text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        Some(match self.value(key)? {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        })
    }

    /// A number, 0 and below included. NaN and infinity are none, and a remark says so.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        let wrong = |value: &Value| {
            let shown: String = value.to_string().chars().take(40).collect();
            format!("{key:?} is {shown}, where {} has a number", self.form)
        };
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
            Some(value @ Value::String(text)) => {
                text.trim().parse::<f64>().map_err(|_| wrong(value))?
            }
            Some(value) => return Err(wrong(value)),
        };
        if !number.is_finite() {
            self.remarks
                .push(format!("{key} is {number}, so it is left out."));
            return Ok(None);
        }
        if number.abs() > LARGEST {
            return Err(format!(
                "{key:?} is {number:e}, which no benchmark measures"
            ));
        }
        Ok(Some(number))
    }

    /// A time or rate that may be missing; 0 is how some programs write that nothing was measured.
    pub(super) fn figure(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.number(key)? {
            Some(value) if value < 0.0 => Err(format!("{key:?} is {value}; it cannot be below 0")),
            Some(0.0) | None => Ok(None),
            some => Ok(some),
        }
    }

    /// [`Fields::figure`] in milliseconds, as seconds.
    pub(super) fn milliseconds(&mut self, key: &str) -> Result<Option<f64>, String> {
        Ok(self.figure(key)?.map(|ms| ms / 1e3))
    }

    /// A number that the form always has, above 0; `what` says what it is, with its unit.
    pub(super) fn required(&mut self, key: &str, what: &str) -> Result<f64, String> {
        match self.number(key)? {
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(format!("{key:?} is {value}; {what} must be above 0")),
            None if self.has(key) => Err(format!(
                "{key:?} has no value; {} has {what} there",
                self.form
            )),
            None => Err(format!(
                "{key:?} is missing; {} has {what} there",
                self.form
            )),
        }
    }

    /// A whole number, if it is there.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.number(key)? else {
            return Ok(None);
        };
        if value < 0.0 || value.fract() != 0.0 || value > LARGEST_COUNT {
            return Err(format!(
                "{key:?} is {value}, where {} has a whole number",
                self.form
            ));
        }
        Ok(Some(value as u64)) // exact: checked above
    }

    /// A whole number that the form always has, above 0.
    pub(super) fn required_count(&mut self, key: &str, what: &str) -> Result<u64, String> {
        self.required(key, what)?;
        Ok(self.count(key)?.unwrap_or_default())
    }

    /// A number of ranks.
    pub(super) fn ranks(&mut self, key: &str) -> Result<Option<u32>, String> {
        let Some(count) = self.count(key)? else {
            return Ok(None);
        };
        u32::try_from(count)
            .map(Some)
            .map_err(|_| format!("{key:?} is {count}, more than there are GPUs"))
    }

    /// The object below a key.
    pub(super) fn below(&self, key: &str) -> Option<&'a Map<String, Value>> {
        self.object.get(key)?.as_object()
    }

    /// Those of `keys` that have a value, as texts.
    pub(super) fn texts<const N: usize>(
        &self,
        keys: [&'static str; N],
    ) -> impl Iterator<Item = (String, String)> {
        keys.into_iter()
            .filter_map(|key| Some((key.to_owned(), self.text(key)?)))
    }

    /// The numbers of a list.
    pub(super) fn list(&self, key: &str) -> Option<Vec<f64>> {
        let values = self.object.get(key)?.as_array()?;
        let numbers: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
        numbers.filter(|numbers| !numbers.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[track_caller]
    fn check(json: &str, expected: Result<Option<f64>, &str>) {
        let object = object(json);
        let found = Fields::new("form", &object).figure("a");
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn numbers_come_in_many_spellings() {
        check("{\"a\": 2}", Ok(Some(2.0)));
        check("{\"a\": \" 2.5e-3 \"}", Ok(Some(2.5e-3)));
        check("{\"a\": \"-\"}", Ok(None));
        check("{\"a\": null}", Ok(None));
        check("{}", Ok(None));
        check("{\"a\": 0.0}", Ok(None));
        check("{\"a\": \"NaN\"}", Ok(None));
        check("{\"a\": -1}", Err("\"a\" is -1; it cannot be below 0"));
        check(
            "{\"a\": \"2 ms\"}",
            Err("\"a\" is \"2 ms\", where form has a number"),
        );
        check("{\"a\": [1]}", Err("\"a\" is [1], where form has a number"));
        check(
            "{\"a\": 1e300}",
            Err("\"a\" is 1e300, which no benchmark measures"),
        );
    }

    #[test]
    fn what_a_form_always_has_is_asked_for_by_name() {
        let object = object("{\"zero\": 0, \"half\": 0.5, \"huge\": 1e20, \"none\": null}");
        let mut fields = Fields::new("form", &object);
        let mut error = |key| fields.required_count(key, "a batch size").unwrap_err();
        assert_eq!(
            error("gone"),
            "\"gone\" is missing; form has a batch size there"
        );
        assert_eq!(
            error("none"),
            "\"none\" has no value; form has a batch size there"
        );
        assert_eq!(error("zero"), "\"zero\" is 0; a batch size must be above 0");
        assert_eq!(
            error("half"),
            "\"half\" is 0.5, where form has a whole number"
        );
        assert_eq!(
            error("huge"),
            "\"huge\" is 100000000000000000000, where form has a whole number"
        );
    }

    #[test]
    fn values_that_are_no_numbers_are_told_of() {
        let object = object("{\"a\": \"Infinity\"}");
        let mut fields = Fields::new("form", &object);
        assert_eq!(fields.number("a"), Ok(None));
        assert_eq!(fields.remarks, ["a is inf, so it is left out."]);
    }
}
