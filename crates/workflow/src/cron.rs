//! Checks cron expressions as GitHub takes them: five fields, with names for months and days.

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of the month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of the week", least: 0, most: 6, names: &DAYS },
];

/// Why an expression is not valid.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    let parts: Vec<&str> = expression.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("it has {} fields instead of 5 (minute, hour, day, month, day of the week)", parts.len()));
    }
    for (field, part) in FIELDS.iter().zip(parts) {
        for item in part.split(',') {
            field.check(item).map_err(|why| format!("the {} `{item}` {why}", field.name))?;
        }
    }
    Ok(())
}

impl Field {
    fn check(&self, item: &str) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step {
            let valid = digits(step).is_some_and(|step| step > 0);
            if !valid {
                return Err("has no valid step after the `/`".to_owned());
            }
        }
        if range == "*" {
            return Ok(());
        }
        match range.split_once('-') {
            None => self.number(range).map(|_| ()),
            Some((low, high)) => {
                if self.number(low)? > self.number(high)? {
                    return Err("is a range that runs backwards".to_owned());
                }
                Ok(())
            }
        }
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.least + u32::try_from(at).unwrap_or(0));
        }
        digits(text)
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| format!("is not between {} and {}", self.least, self.most))
    }
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_github_takes() {
        for good in
            ["* * * * *", "30 5,17 * * *", "*/15 0-6/2 1 1 0", "0 0 * JAN-mar sun", "5 4 1-31 12 6", "0  0 * * *"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "@daily",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "1,,2 * * * *",
            "*/ * * * *",
            "-1 * * * *",
            "1- * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
