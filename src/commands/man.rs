//! `crier man`: the manual pages, made from the command line and from the keys of the configuration. Floor 4.

use clap::{Args, Command, CommandFactory, ValueEnum};

use super::{Arguments, Exit, print};
use crate::config::manual::{manual, roff};

#[derive(Debug, Args)]
pub struct Man {
    /// The page to print
    #[arg(value_enum, default_value_t = Page::Crier)]
    page: Page,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Page {
    /// crier(8): the commands
    Crier,
    /// crier.toml(5): the configuration
    #[value(name = "crier.toml")]
    CrierToml,
}

pub fn man(arguments: &Man) -> Exit {
    let text = match arguments.page {
        Page::Crier => commands(),
        Page::CrierToml => Ok(manual()),
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => {
            tell!("crier: cannot write the manual page: {error}");
            Exit::Problem
        }
    }
}

/// crier(8): what clap knows of the program, and below it each verb with its arguments.
fn commands() -> std::io::Result<String> {
    let mut command = Arguments::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone()).section("8").manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page += ".SH COMMANDS\n";
    verbs(&mut command, &mut page);
    page += ".SH \"EXIT STATUS\"\n";
    for exit in [Exit::Fine, Exit::Problem, Exit::Usage, Exit::NotReachable, Exit::TimedOut] {
        page += &format!(".TP\n.B {}\n{}\n", exit as u8, meaning(exit));
    }
    page += ".SH \"SEE ALSO\"\n.BR crier.toml (5)\n";
    Ok(page)
}

fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Fine => "Success, or nothing to change.",
        Exit::Problem => "A problem was found, or there are changes.",
        Exit::Usage => "The command line or the configuration is wrong.",
        Exit::NotReachable => "No agent answers on the socket.",
        Exit::TimedOut => "The agent did not finish in time.",
    }
}

/// Each verb and what is below it: usage, what it does, its arguments. The options of every verb stand above.
fn verbs(command: &mut Command, page: &mut String) {
    let own = |verb: &&mut Command| !verb.is_hide_set() && verb.get_name() != "help";
    for verb in command.get_subcommands_mut().filter(own) {
        let usage = verb.render_usage().to_string();
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        *page += &format!(".SS \"{}\"\n{}.\n", roff(usage.trim_start_matches("Usage: ").trim()), roff(&about));
        for argument in verb.get_arguments().filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
        {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            *page += &format!(".TP\n.B {}\n{}\n", roff(&argument.to_string()), roff(&help));
        }
        verbs(verb, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb and subcommand, as it is typed.
    fn typed(command: &Command, before: &str) -> Vec<String> {
        let own = command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set());
        let each = own.flat_map(|verb| {
            let name = format!("{before} {}", verb.get_name());
            let below = typed(verb, &name);
            [name].into_iter().chain(below)
        });
        each.collect()
    }

    #[test]
    fn the_manual_has_every_verb_and_every_argument() {
        let page = commands().expect("a String takes every text");
        let mut command = Arguments::command();
        command.build();
        let verbs = typed(&command, "crier");
        assert!(verbs.len() > 8, "{verbs:?}");
        for verb in verbs {
            assert!(page.contains(&format!(".SS \"{}", roff(&verb))), "{verb} is in the manual:\n{page}");
        }
        for option in ["socket", "output", "json", "config"] {
            assert!(page.contains(&roff(&format!("--{option}"))), "--{option} is in the manual");
        }
    }
}
