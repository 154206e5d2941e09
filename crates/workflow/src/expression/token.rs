//! Splits an expression into tokens.

use super::ExpressionError;
use crate::number;
use crate::text::clip;

/// A token and where it begins, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: usize,
    pub(crate) kind: TokenKind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    Open,
    Close,
    OpenIndex,
    CloseIndex,
    Comma,
    Dot,
    Star,
    Not,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Number(f64),
    String(String),
    /// A keyword, a property, a function or a context.
    Word(String),
}

impl TokenKind {
    /// How it is written, for errors.
    pub(crate) fn spelling(&self) -> String {
        match self {
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
            Self::OpenIndex => "[".to_owned(),
            Self::CloseIndex => "]".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Dot => ".".to_owned(),
            Self::Star => "*".to_owned(),
            Self::Not => "!".to_owned(),
            Self::Equal => "==".to_owned(),
            Self::NotEqual => "!=".to_owned(),
            Self::Less => "<".to_owned(),
            Self::LessOrEqual => "<=".to_owned(),
            Self::Greater => ">".to_owned(),
            Self::GreaterOrEqual => ">=".to_owned(),
            Self::And => "&&".to_owned(),
            Self::Or => "||".to_owned(),
            Self::Number(value) => number::format(*value),
            Self::String(text) => format!("'{}'", clip(text, 40)),
            Self::Word(word) => clip(word, 40),
        }
    }

    /// Whether a value can end with it, so that `.` after it reads a property.
    const fn ends_value(&self) -> bool {
        matches!(self, Self::Close | Self::CloseIndex | Self::Star | Self::Number(_) | Self::String(_) | Self::Word(_))
    }
}

/// All tokens of an expression.
pub(crate) fn tokens(expression: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut lexer = Lexer { source: expression, chars: expression.chars().collect(), at: 0, found: Vec::new() };
    while let Some(c) = lexer.peek(0) {
        if c.is_whitespace() {
            lexer.at += 1;
        } else {
            lexer.next_token(c)?;
        }
    }
    Ok(lexer.found)
}

struct Lexer<'a> {
    source: &'a str,
    chars: Vec<char>,
    at: usize,
    found: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, length: usize, kind: TokenKind) {
        self.found.push(Token { at: self.at, kind });
        self.at += length;
    }

    fn fail<T>(&self, at: usize, message: String) -> Result<T, ExpressionError> {
        Err(ExpressionError::new(self.source, at, message))
    }

    fn next_token(&mut self, c: char) -> Result<(), ExpressionError> {
        let next = self.peek(1);
        match (c, next) {
            ('(', _) => self.push(1, TokenKind::Open),
            (')', _) => self.push(1, TokenKind::Close),
            ('[', _) => self.push(1, TokenKind::OpenIndex),
            (']', _) => self.push(1, TokenKind::CloseIndex),
            (',', _) => self.push(1, TokenKind::Comma),
            ('*', _) => self.push(1, TokenKind::Star),
            ('=', Some('=')) => self.push(2, TokenKind::Equal),
            ('!', Some('=')) => self.push(2, TokenKind::NotEqual),
            ('!', _) => self.push(1, TokenKind::Not),
            ('<', Some('=')) => self.push(2, TokenKind::LessOrEqual),
            ('<', _) => self.push(1, TokenKind::Less),
            ('>', Some('=')) => self.push(2, TokenKind::GreaterOrEqual),
            ('>', _) => self.push(1, TokenKind::Greater),
            ('&', Some('&')) => self.push(2, TokenKind::And),
            ('|', Some('|')) => self.push(2, TokenKind::Or),
            ('=' | '&' | '|', _) => {
                return self.fail(self.at, format!("unexpected symbol `{c}`: did you mean `{c}{c}`?"));
            }
            ('\'', _) => return self.string(),
            ('"', _) => return self.fail(self.at, "unexpected symbol `\"`: texts stand in single quotes".to_owned()),
            ('.', _) if self.found.last().is_some_and(|last| last.kind.ends_value()) => self.push(1, TokenKind::Dot),
            ('.' | '-' | '+' | '0'..='9', _) => return self.number(),
            _ => return self.word(),
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), ExpressionError> {
        let mut text = String::new();
        let mut end = self.at + 1;
        loop {
            match (self.chars.get(end), self.chars.get(end + 1)) {
                (Some('\''), Some('\'')) => {
                    text.push('\'');
                    end += 2;
                }
                (Some('\''), _) => break,
                (Some(c), _) => {
                    text.push(*c);
                    end += 1;
                }
                (None, _) => return self.fail(self.at, "a text is not closed: the second ' is missing".to_owned()),
            }
        }
        self.push(end + 1 - self.at, TokenKind::String(text));
        Ok(())
    }

    /// The characters up to the next that cannot belong to a number or word.
    fn run(&self, goes_on: impl Fn(char) -> bool) -> String {
        let mut text: String = self.chars.get(self.at).into_iter().collect();
        text.extend(self.chars.iter().skip(self.at + 1).take_while(|c| goes_on(**c)));
        text
    }

    fn number(&mut self) -> Result<(), ExpressionError> {
        let text = self.run(|c| !is_boundary(c) || c == '.');
        let value = number::parse(&text);
        if value.is_nan() {
            return self.fail(self.at, format!("unexpected symbol `{}`", clip(&text, 40)));
        }
        self.push(text.chars().count(), TokenKind::Number(value));
        Ok(())
    }

    fn word(&mut self) -> Result<(), ExpressionError> {
        let text = self.run(|c| !is_boundary(c));
        if !is_word(&text) {
            return self.fail(self.at, format!("unexpected symbol `{}`", clip(&text, 40)));
        }
        self.push(text.chars().count(), TokenKind::Word(text));
        Ok(())
    }
}

fn is_boundary(c: char) -> bool {
    c.is_whitespace() || "()[],.!<>=&|".contains(c)
}

/// Whether this can be the name of a context, property or function: a letter or `_`, then letters, digits, `_`, `-`.
pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
