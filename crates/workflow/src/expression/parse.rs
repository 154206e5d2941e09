//! Reads the tokens of an expression into a tree.

use super::ExpressionError;
use super::functions::Function;
use super::scope::Scope;
use super::token::{Token, TokenKind, tokens};
use crate::text;
use crate::value::Value;

/// How long an expression may be, in characters.
pub(crate) const MAX_LENGTH: usize = 21_000;
/// How deep the tree of an expression may be.
pub(crate) const MAX_DEPTH: usize = 50;
/// How deep parentheses may stand in each other; they add nothing to the tree, but to the parser's stack.
const MAX_GROUPS: usize = 100;

/// An expression that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    /// A context by its name.
    Context(String),
    /// A property or item.
    Index(Box<Expr>, Box<Expr>),
    /// `.*` or `[*]`.
    Filter(Box<Expr>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// A function, its arguments, and where its name stands.
    Call(Function, Vec<Expr>, usize),
}

/// The operators between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expr {
    /// Calls `visit` for this expression and all it is made of.
    pub(crate) fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        visit(self);
        match self {
            Self::Literal(_) | Self::Context(_) => {}
            Self::Index(left, right) | Self::Compare(_, left, right) => {
                left.walk(visit);
                right.walk(visit);
            }
            Self::Filter(inner) | Self::Not(inner) => inner.walk(visit),
            Self::And(items) | Self::Or(items) | Self::Call(_, items, _) => {
                for item in items {
                    item.walk(visit);
                }
            }
        }
    }

    /// Whether one of `success()`, `failure()`, `cancelled()` and `always()` is called.
    pub(crate) fn asks_status(&self) -> bool {
        let mut found = false;
        self.walk(&mut |expr| found |= matches!(expr, Self::Call(function, ..) if function.is_status()));
        found
    }

    /// Whether a context is named.
    pub(crate) fn names_context(&self, name: &str) -> bool {
        let mut found = false;
        self.walk(&mut |expr| found |= matches!(expr, Self::Context(context) if text::equal(context, name)));
        found
    }
}

/// Reads an expression, which must name nothing but what `scope` allows.
pub(crate) fn parse(expression: &str, scope: &Scope) -> Result<Expr, ExpressionError> {
    if expression.chars().count() > MAX_LENGTH {
        let message = format!("the expression is longer than {MAX_LENGTH} characters");
        return Err(ExpressionError::new(&text::clip(expression, 60), 0, message));
    }
    let tokens = tokens(expression)?;
    let mut parser = Parser { expression, tokens, at: 0, groups: 0, scope };
    let Tree { expr, .. } = parser.or()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some(token) => Err(parser.unexpected(token)),
    }
}

/// An expression and how deep it is.
struct Tree {
    expr: Expr,
    depth: usize,
}

impl Tree {
    const fn leaf(expr: Expr) -> Self {
        Self { expr, depth: 1 }
    }
}

struct Parser<'a> {
    expression: &'a str,
    tokens: Vec<Token>,
    at: usize,
    groups: usize,
    scope: &'a Scope,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&TokenKind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or_else(|| self.expression.trim_end().chars().count(), |token| token.at)
    }

    fn take(&mut self, kind: &TokenKind) -> bool {
        let there = self.peek() == Some(kind);
        self.at += usize::from(there);
        there
    }

    fn error(&self, position: usize, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.expression, position, message)
    }

    fn unexpected(&self, token: &Token) -> ExpressionError {
        self.error(token.at, format!("unexpected symbol `{}`", token.kind.spelling()))
    }

    fn unexpected_here(&self) -> ExpressionError {
        match self.tokens.get(self.at) {
            Some(token) => self.unexpected(token),
            None => self.error(self.position(), "the expression ends too early"),
        }
    }

    fn tree(&self, depth: usize, expr: Expr) -> Result<Tree, ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(self.error(self.position(), format!("the expression is nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Tree { expr, depth })
    }

    fn or(&mut self) -> Result<Tree, ExpressionError> {
        let first = self.and()?;
        self.chain(first, &TokenKind::Or, Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Tree, ExpressionError> {
        let first = self.equality()?;
        self.chain(first, &TokenKind::And, Self::equality, Expr::And)
    }

    /// `a && b && c` is one node, however long.
    fn chain(
        &mut self,
        first: Tree,
        operator: &TokenKind,
        operand: fn(&mut Self) -> Result<Tree, ExpressionError>,
        make: fn(Vec<Expr>) -> Expr,
    ) -> Result<Tree, ExpressionError> {
        let mut depth = first.depth;
        let mut items = vec![first.expr];
        while self.take(operator) {
            let next = operand(self)?;
            depth = depth.max(next.depth);
            items.push(next.expr);
        }
        match items.len() {
            1 => Ok(Tree { expr: items.remove(0), depth }),
            _ => self.tree(depth + 1, make(items)),
        }
    }

    fn equality(&mut self) -> Result<Tree, ExpressionError> {
        self.compare(Self::relation, |kind| match kind {
            TokenKind::Equal => Some(Comparison::Equal),
            TokenKind::NotEqual => Some(Comparison::NotEqual),
            _ => None,
        })
    }

    fn relation(&mut self) -> Result<Tree, ExpressionError> {
        self.compare(Self::unary, |kind| match kind {
            TokenKind::Less => Some(Comparison::Less),
            TokenKind::LessOrEqual => Some(Comparison::LessOrEqual),
            TokenKind::Greater => Some(Comparison::Greater),
            TokenKind::GreaterOrEqual => Some(Comparison::GreaterOrEqual),
            _ => None,
        })
    }

    fn compare(
        &mut self,
        operand: fn(&mut Self) -> Result<Tree, ExpressionError>,
        operator: fn(&TokenKind) -> Option<Comparison>,
    ) -> Result<Tree, ExpressionError> {
        let mut left = operand(self)?;
        while let Some(comparison) = self.peek().and_then(operator) {
            self.at += 1;
            let right = operand(self)?;
            let depth = left.depth.max(right.depth) + 1;
            left = self.tree(depth, Expr::Compare(comparison, Box::new(left.expr), Box::new(right.expr)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Tree, ExpressionError> {
        let mut nots = 0;
        while self.take(&TokenKind::Not) {
            nots += 1;
            if nots > MAX_DEPTH {
                return self.tree(nots, Expr::Literal(Value::Null));
            }
        }
        let mut tree = self.postfix()?;
        for _ in 0..nots {
            tree = self.tree(tree.depth + 1, Expr::Not(Box::new(tree.expr)))?;
        }
        Ok(tree)
    }

    fn postfix(&mut self) -> Result<Tree, ExpressionError> {
        let start = self.at;
        let mut tree = self.primary()?;
        // A literal has neither properties nor items.
        let literal = self.at == start + 1 && matches!(tree.expr, Expr::Literal(_));
        loop {
            match self.peek() {
                Some(TokenKind::Dot | TokenKind::OpenIndex) if literal => return Err(self.unexpected_here()),
                Some(TokenKind::Dot) => {
                    self.at += 1;
                    tree = self.property(tree)?;
                }
                Some(TokenKind::OpenIndex) => {
                    self.at += 1;
                    tree = self.index(tree)?;
                }
                _ => return Ok(tree),
            }
        }
    }

    fn property(&mut self, of: Tree) -> Result<Tree, ExpressionError> {
        let depth = of.depth.max(1) + 1;
        match self.peek().cloned() {
            Some(TokenKind::Star) => {
                self.at += 1;
                self.tree(depth, Expr::Filter(Box::new(of.expr)))
            }
            Some(TokenKind::Word(name)) => {
                self.at += 1;
                self.tree(depth, Expr::Index(Box::new(of.expr), Box::new(Expr::Literal(Value::String(name)))))
            }
            _ => Err(self.unexpected_here()),
        }
    }

    fn index(&mut self, of: Tree) -> Result<Tree, ExpressionError> {
        if self.take(&TokenKind::Star) {
            self.expect(&TokenKind::CloseIndex)?;
            return self.tree(of.depth + 1, Expr::Filter(Box::new(of.expr)));
        }
        let index = self.group(Self::or)?;
        self.expect(&TokenKind::CloseIndex)?;
        self.tree(of.depth.max(index.depth) + 1, Expr::Index(Box::new(of.expr), Box::new(index.expr)))
    }

    fn expect(&mut self, kind: &TokenKind) -> Result<(), ExpressionError> {
        if self.take(kind) {
            return Ok(());
        }
        match self.peek() {
            None => Err(self.error(self.position(), format!("`{}` is missing", kind.spelling()))),
            Some(_) => Err(self.unexpected_here()),
        }
    }

    /// Reads something in brackets, of which only so many may stand in each other.
    fn group(&mut self, read: fn(&mut Self) -> Result<Tree, ExpressionError>) -> Result<Tree, ExpressionError> {
        self.groups += 1;
        if self.groups > MAX_GROUPS {
            return Err(self.error(self.position(), format!("more than {MAX_GROUPS} brackets stand in each other")));
        }
        let tree = read(self);
        self.groups -= 1;
        tree
    }

    fn primary(&mut self) -> Result<Tree, ExpressionError> {
        let at = self.position();
        let Some(kind) = self.peek().cloned() else { return Err(self.unexpected_here()) };
        match kind {
            TokenKind::Open => {
                self.at += 1;
                let inner = self.group(Self::or)?;
                self.expect(&TokenKind::Close)?;
                Ok(inner)
            }
            TokenKind::Number(value) => self.literal(Value::Number(value)),
            TokenKind::String(text) => self.literal(Value::String(text)),
            TokenKind::Word(word) => {
                self.at += 1;
                if self.peek() == Some(&TokenKind::Open) { self.call(&word, at) } else { self.word(word, at) }
            }
            _ => Err(self.unexpected_here()),
        }
    }

    fn literal(&mut self, value: Value) -> Result<Tree, ExpressionError> {
        self.at += 1;
        Ok(Tree::leaf(Expr::Literal(value)))
    }

    fn word(&self, word: String, at: usize) -> Result<Tree, ExpressionError> {
        let value = match word.as_str() {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "NaN" => Value::Number(f64::NAN),
            "Infinity" => Value::Number(f64::INFINITY),
            _ => {
                self.scope.check_context(&word).map_err(|message| self.error(at, message))?;
                return Ok(Tree::leaf(Expr::Context(word)));
            }
        };
        Ok(Tree::leaf(Expr::Literal(value)))
    }

    fn call(&mut self, name: &str, at: usize) -> Result<Tree, ExpressionError> {
        let function = Function::find(name).ok_or_else(|| self.error(at, Function::unknown(name)))?;
        self.scope.check_function(function).map_err(|message| self.error(at, message))?;
        self.at += 1;
        let mut arguments = Vec::new();
        let mut depth = 0;
        if !self.take(&TokenKind::Close) {
            loop {
                let argument = self.group(Self::or)?;
                depth = depth.max(argument.depth);
                arguments.push(argument.expr);
                if !self.take(&TokenKind::Comma) {
                    break;
                }
            }
            self.expect(&TokenKind::Close)?;
        }
        function.check_count(arguments.len()).map_err(|message| self.error(at, message))?;
        self.tree(depth + 1, Expr::Call(function, arguments, at))
    }
}
