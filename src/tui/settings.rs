//! What a person has set for the view: `$XDG_CONFIG_HOME/dtwn/config.toml`, without which everything has its default.
//!
//! ```toml
//! theme = "light"        # default, light, high-contrast, colour-blind, none
//! fps = 2                # frames a second, at most
//! mouse = false          # leaves the mouse to the terminal, for selecting text
//!
//! [keys]                 # an action and its keys, in place of those it has
//! quit = ["Q", "ctrl-c"]
//! freeze = "f2"
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use config::{Config, FileFormat, Value};
use serde::Deserialize;

use super::{keys::KeyMap, theme::Theme};
use crate::error::{Error, Result};

/// What is set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Colours.
    pub theme: Theme,
    /// Frames a second at most, where the command line does not say.
    pub fps: Option<u32>,
    /// Whether the mouse is left to the terminal.
    pub no_mouse: bool,
    /// Which keys mean what.
    pub keys: KeyMap,
}

/// The file's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Form {
    theme: String,
    fps: Option<u32>,
    mouse: bool,
    keys: BTreeMap<String, Value>,
}

impl Default for Form {
    fn default() -> Self {
        Self { theme: "default".into(), fps: None, mouse: true, keys: BTreeMap::new() }
    }
}

impl Settings {
    /// Reads the person's file, if there is one. `NO_COLOR` wins over the theme.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the file and what is wrong in it.
    pub fn load() -> Result<Self> {
        let mut settings = match path() {
            Some(path) => Self::read(&path)?,
            None => Self::default(),
        };
        // https://no-color.org: any value that is not empty.
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            settings.theme = Theme::new(false);
        }
        Ok(settings)
    }

    fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|what| Error::Usage {
                what: format!("{}: {what}", path.display()),
                help: "docs/terminal.md lists what can be set; without the file everything has its default"
                    .into(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// Reads a file's text.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let file = config::File::from_str(text, FileFormat::Toml);
        let read = Config::builder().add_source(file).build().and_then(Config::try_deserialize::<Form>);
        let form = read.map_err(|error| error.to_string().trim().to_owned())?;
        let theme = Theme::named(&form.theme)?;
        if form.fps.is_some_and(|fps| !(1..=60).contains(&fps)) {
            return Err("fps must lie between 1 and 60".into());
        }
        let mut chosen = BTreeMap::new();
        for (action, keys) in form.keys {
            let list = match keys.clone().into_array() {
                Ok(list) => {
                    list.into_iter().map(Value::into_string).collect::<std::result::Result<Vec<_>, _>>()
                }
                Err(_) => keys.into_string().map(|key| vec![key]),
            };
            let list = list.map_err(|_| format!("keys.{action} must be a key or a list of keys"))?;
            chosen.insert(action, list);
        }
        Ok(Self { theme, fps: form.fps, no_mouse: !form.mouse, keys: KeyMap::new(chosen)? })
    }
}

/// Where the file is looked for; a relative `XDG_CONFIG_HOME` counts as none (XDG Base Directory Specification 0.8).
fn path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("dtwn/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::keys::{Action, GLOBAL};

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let settings = Settings::parse(
            "theme = 'light'\nfps = 2\nmouse = false\n[keys]\nquit = ['Q', 'f10']\nfreeze = 'f2'\n",
        )
        .unwrap();
        assert_eq!((settings.fps, settings.no_mouse), (Some(2), true));
        let find = |key| settings.keys.find(GLOBAL, key);
        assert_eq!([find("Q"), find("f10"), find("q")], [Some(Action::Quit), Some(Action::Quit), None]);
        assert_eq!([find("f2"), find("space"), find("?")], [Some(Action::Freeze), None, Some(Action::Help)]);
        let none = Settings::parse("").unwrap();
        assert_eq!((none.fps, none.no_mouse, none.keys.find(GLOBAL, "q")), (None, false, Some(Action::Quit)));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said() {
        for (text, part) in [
            ("colour = 'red'", "unknown field `colour`"),
            ("theme = 'ligth'", "did you mean `light`"),
            ("fps = 0", "between 1 and 60"),
            ("fps = 'fast'", "fps"),
            ("theme = ", "line 1"),
            ("[keys]\nqiut = 'x'", "did you mean `quit`"),
            ("[keys]\nquit = 3.5\nhelp = []", "no key"),
            ("[keys]\nquit = 'ctrl+q'", "`ctrl+q` is no key"),
            ("[keys]\nquit = {a = 1}", "keys.quit must be a key"),
            // `k` goes up everywhere, and `e` edits on the links' screen.
            ("[keys]\nquit = 'k'", "`k`"),
            ("[keys]\nquit = 'e'", "`e`"),
        ] {
            let error = Settings::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Settings::read(&dir.path().join("none.toml")).is_ok());
        std::fs::write(dir.path().join("bad.toml"), "speed = 1").unwrap();
        let error = Settings::read(&dir.path().join("bad.toml")).unwrap_err().to_string();
        assert!(error.contains("bad.toml") && error.contains("speed"), "{error}");
    }
}
