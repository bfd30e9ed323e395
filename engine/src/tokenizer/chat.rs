//! Chat templates: Jinja as transformers runs it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{ChatMessage, one_line, python};
use crate::error::Error;

const NAME: &str = "chat template";

/// A chat template, ready to render.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    /// Why it is no template, for those who want to chat: everything else works without.
    environment: Result<Environment<'static>, String>,
    /// `bos_token` and so on, which templates use as variables.
    special: Vec<(String, String)>,
}

impl ChatTemplate {
    /// A template of this `source`, in which the names in `special` stand for texts.
    pub(super) fn new(source: String, special: Vec<(String, String)>) -> ChatTemplate {
        let environment = environment().and_then(|mut environment| {
            environment.add_template_owned(NAME, source)?;
            Ok(environment)
        });
        ChatTemplate {
            environment: environment.map_err(|e| describe(&e)),
            special,
        }
    }

    pub(super) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let error = |problem: &str| {
            Error::input(format!(
                "the model's chat template cannot be used: {problem}"
            ))
        };
        let environment = self.environment.as_ref().map_err(|e| error(e))?;
        let special = self
            .special
            .iter()
            .map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
        let variables: BTreeMap<&str, Value> = [
            ("messages", messages.iter().map(message).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]
        .into_iter()
        .chain(special)
        .collect();
        environment
            .get_template(NAME)
            .and_then(|template| template.render(variables))
            .map_err(|e| error(&describe(&e)))
    }
}

fn message(message: &ChatMessage) -> Value {
    Value::from_pairs([
        ("role", message.role.as_str()),
        ("content", message.content.as_str()),
    ])
}

/// Jinja as `transformers.utils.chat_template_utils` sets it up.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |format: String| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        python::strftime(&format, now)
    });
    environment.add_filter(
        "tojson",
        |value: Value, indent: Option<Value>, options: Kwargs| {
            let json = minijinja::filters::tojson(&value, indent, options)?;
            Ok::<_, minijinja::Error>(python::unescape_html(json.as_str().unwrap_or_default()))
        },
    );
    Ok(environment)
}

/// The error and what led to it, on one line.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    one_line(&text)
}
