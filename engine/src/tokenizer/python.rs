//! The few functions of Python's that chat templates see through.

use stepscope_profiler::environment::civil_date;

/// JSON as `json.dumps(value, ensure_ascii=False)` has it, from JSON in which `<`, `>`, `&` and `'` are escaped for
/// HTML.
pub(super) fn unescape_html(json: &str) -> String {
    const ESCAPED: [(&str, char); 4] = [
        ("u003c", '<'),
        ("u003e", '>'),
        ("u0026", '&'),
        ("u0027", '\''),
    ];
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let escaped = ESCAPED
            .iter()
            .find_map(|(code, c)| Some((after.strip_prefix(code)?, *c)));
        rest = match escaped {
            Some((after, c)) => {
                out.push(c);
                after
            }
            None => {
                // Some other escape: its first character must not be taken for the begin of one.
                let end = after.chars().next().map_or(0, char::len_utf8);
                out.push('\\');
                out.push_str(&after[..end]);
                &after[end..]
            }
        };
    }
    out.push_str(rest);
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday", // 1970-01-01
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// `datetime.strftime(format)` of the UTC time `unix_s` seconds after 1970. Directives beyond the date and the time
/// of day stay as they are.
pub(super) fn strftime(format: &str, unix_s: u64) -> String {
    let (days, second_of_day) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected texts: Python's.
    #[test]
    fn dates() {
        let all = "%Y-%m-%d %H:%M:%S %y %b %B %a %A %I %p 100%% %q %";
        for (unix_s, expected) in [
            (
                0,
                "1970-01-01 00:00:00 70 Jan January Thu Thursday 12 AM 100% %q %",
            ),
            (
                951_827_696,
                "2000-02-29 12:34:56 00 Feb February Tue Tuesday 12 PM 100% %q %",
            ),
            (
                1_721_952_000,
                "2024-07-26 00:00:00 24 Jul July Fri Friday 12 AM 100% %q %",
            ),
            (
                4_107_542_399,
                "2100-02-28 23:59:59 00 Feb February Sun Sunday 11 PM 100% %q %",
            ),
        ] {
            assert_eq!(strftime(all, unix_s), expected);
        }
    }

    #[test]
    fn only_what_html_asked_for_is_unescaped() {
        let check = |json: &str, expected: &str| assert_eq!(unescape_html(json), expected);
        check(
            r#"{"a": "\u003cb\u003e \u0026 it\u0027s"}"#,
            r#"{"a": "<b> & it's"}"#,
        );
        check(
            r#""\\u003c \n \" \u001f \\""#,
            r#""\\u003c \n \" \u001f \\""#,
        );
        check(r"\", r"\");
    }
}
