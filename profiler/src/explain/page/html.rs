//! The page around the plots: head, sections, statements with their figures, tables, and flame graphs. Every page is well-formed XML
//! besides its first line, so that tests can read it.

use super::svg::escape;
use crate::activity::{Grade, Trust};
use crate::explain::statement::Statement;
use crate::report::verdict;

const STYLE: &str = include_str!("style.css");

/// A page under construction.
pub(super) struct Page {
    title: String,
    /// Lines under the title; text.
    subtitles: Vec<String>,
    /// Identifier, heading, and content of each section.
    sections: Vec<(&'static str, &'static str, String)>,
}

impl Page {
    pub(super) fn new(title: &str, subtitles: Vec<String>) -> Page {
        Page {
            title: title.to_owned(),
            subtitles,
            sections: Vec::new(),
        }
    }

    /// Adds a section, unless it is empty. `content` is HTML.
    pub(super) fn section(&mut self, id: &'static str, heading: &'static str, content: String) {
        if !content.trim().is_empty() {
            self.sections.push((id, heading, content));
        }
    }

    pub(super) fn finish(self) -> String {
        let title = escape(&self.title);
        let subtitles: String = self
            .subtitles
            .iter()
            .map(|line| format!("<p class=\"subtitle\">{}</p>\n", escape(line)))
            .collect();
        let links: String = self
            .sections
            .iter()
            .map(|(id, heading, _)| format!("<a href=\"#{id}\">{}</a> ", escape(heading)))
            .collect();
        let sections: String = self
            .sections
            .iter()
            .map(|(id, heading, content)| {
                format!(
                    "<section id=\"{id}\">\n<h2>{}</h2>\n{content}</section>\n",
                    escape(heading)
                )
            })
            .collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n{subtitles}\
             <nav>{links}</nav>\n</header>\n{sections}</body>\n</html>\n"
        )
    }
}

/// A statement, and behind "why" the figures it rests on.
pub(super) fn statement(statement: &Statement) -> String {
    let text = escape(&statement.text);
    if statement.figures.is_empty() {
        return format!("<div class=\"statement\"><p>{text}</p></div>\n");
    }
    let mut table = Table::new("lrl", &["figure", "value", "from"]);
    for figure in &statement.figures {
        table.row([figure.name.clone(), figure.shown(), figure.from.clone()]);
    }
    format!(
        "<div class=\"statement\"><p>{text}</p><details><summary>why</summary><div class=\"why\">{}</div></details></div>\n",
        table.finish()
    )
}

/// The grade of a step, and what lowers it.
pub(super) fn trust(trust: &Trust) -> String {
    let class = match trust.grade {
        Grade::Good => "trust",
        Grade::Limited | Grade::Unusable => "trust warning",
    };
    format!("<p class=\"{class}\">{}</p>\n", escape(&verdict(trust)))
}

/// Statements, one after the other.
pub(super) fn statements(all: &[Statement]) -> String {
    all.iter().map(statement).collect()
}

/// `content` under a heading, open or to be opened.
pub(super) fn folded(heading: &str, content: &str, is_open: bool) -> String {
    let open = if is_open { " open=\"\"" } else { "" };
    format!(
        "<details class=\"more\"{open}><summary>{}</summary>\n{content}</details>\n",
        escape(heading)
    )
}

/// A flame graph, a whole SVG file: in a frame of its own, where its script and its style reach nothing else.
pub(super) fn flame_graph(title: &str, svg: &str) -> String {
    // What stands before the picture (XML declaration, document type) has no place in HTML.
    let start = svg.find("<svg").unwrap_or(0);
    let picture = svg.get(start..).unwrap_or_default();
    let [width, height] = ["width", "height"].map(|name| size(picture, name));
    let (width, height) = (width.unwrap_or(1200.0), height.unwrap_or(400.0));
    // The picture's script notes in the address what is enlarged; a frame has no address to note it in.
    let document = format!(
        "<!DOCTYPE html><meta charset='utf-8'><style>body{{margin:0}}svg{{display:block;width:100%;height:auto}}</style>\
         <script>history.replaceState=function(){{}}</script>{picture}"
    );
    format!(
        "<h3>{}</h3>\n<div class=\"scroll\"><iframe title=\"{}\" sandbox=\"allow-scripts\" style=\"aspect-ratio: {width} / {height}\" \
         srcdoc=\"{}\"></iframe></div>\n",
        escape(title),
        escape(title),
        escape_document(&document)
    )
}

/// As [`escape`], but line breaks stay: they end comments of scripts.
fn escape_document(document: &str) -> String {
    let lines: Vec<String> = document.lines().map(escape).collect();
    lines.join("&#10;")
}

/// The number of an attribute in the first tag.
fn size(svg: &str, name: &str) -> Option<f64> {
    let tag = svg.get(..svg.find('>')?)?;
    let after = tag.split(&format!(" {name}=\"")).nth(1)?;
    let value: f64 = after
        .split('"')
        .next()?
        .trim_end_matches("px")
        .parse()
        .ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

/// A table under construction.
pub(super) struct Table {
    /// One letter per column, `l` or `r`.
    alignments: &'static str,
    rows: String,
}

impl Table {
    pub(super) fn new<S: AsRef<str>>(alignments: &'static str, header: &[S]) -> Table {
        let mut table = Table {
            alignments,
            rows: String::new(),
        };
        table.line(
            "tr",
            "th",
            header.iter().map(|cell| cell.as_ref().to_owned()),
        );
        table
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.line("tr", "td", cells);
    }

    /// The last row, under a rule.
    pub(super) fn total(&mut self, cells: impl IntoIterator<Item = String>) {
        self.line("tr class=\"total\"", "td", cells);
    }

    fn line(&mut self, row: &str, tag: &str, cells: impl IntoIterator<Item = String>) {
        self.rows += &format!("<{row}>");
        for (cell, alignment) in cells.into_iter().zip(self.alignments.chars()) {
            let is_long = tag == "td" && alignment == 'l' && cell.chars().count() > 48;
            let class = match (alignment, is_long) {
                (_, true) => " class=\"l long\"",
                ('l', false) => " class=\"l\"",
                _ => "",
            };
            // A header's line break parts a title from its unit.
            let lines: Vec<String> = cell.lines().map(escape).collect();
            self.rows += &format!("<{tag}{class}>{}</{tag}>", lines.join("<br/>"));
        }
        self.rows += "</tr>\n";
    }

    pub(super) fn finish(self) -> String {
        format!(
            "<div class=\"scroll\"><table>\n{}</table></div>\n",
            self.rows
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flame_graph_keeps_its_shape_and_its_script() {
        let svg = "<?xml version=\"1.0\"?>\n<!DOCTYPE svg>\n<svg width=\"1200\" height=\"310\" id=\"x\">\n// a\n</svg>";
        let html = flame_graph("decode", svg);
        assert!(html.contains("aspect-ratio: 1200 / 310"), "{html}");
        assert!(html.contains("// a&#10;&lt;/svg&gt;"), "{html}");
        assert!(!html.contains("?xml"), "{html}");
        assert!(flame_graph("none", "").contains("1200 / 400"));
    }

    #[test]
    fn cells_are_aligned_and_escaped() {
        let mut table = Table::new("lr", &["name", "time\nms"]);
        table.row(["<a>".to_owned(), "1.5".to_owned()]);
        let html = table.finish();
        assert!(html.contains("<th>time<br/>ms</th>"), "{html}");
        assert!(
            html.contains("<td class=\"l\">&lt;a&gt;</td><td>1.5</td>"),
            "{html}"
        );
    }
}
