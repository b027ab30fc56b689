//! How failures are printed: each error says its own level, this says the chain.

use std::error::Error;
use std::fmt;

/// An error with everything below it, outermost first.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut below = self.0.source();
        let mut last = self.0.to_string();
        while let Some(error) = below {
            // Libraries often print their source in their own text: say it once.
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            below = error.source();
        }
        Ok(())
    }
}
