//! `drydock run` and `drydock shell`.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use drydock_extend::in_place::identify;
use drydock_images::built::Built;
use drydock_io::access::User;
use drydock_layout::Image;
use drydock_sandbox::bundle::{Mount, Sandbox};
use drydock_sandbox::room::Room;
use drydock_sandbox::tree::{self, Tree};

use super::{Context, Shop, set, variable};
use crate::cli_sandboxed::{Run, Shell, Started};
use crate::exit::Usage;

/// Where processes of app images are, by their types.
const PROCESSES: &str = "/cnb/process";

/// Where a busybox from outside is: by this name, it is all its programs.
const BUSYBOX: &str = "/.drydock/busybox";

/// Programs that are shells, the most comfortable first.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"];

pub(crate) fn run(context: &mut Context, room: Room, options: &Run) -> Result<u8> {
    let image = image(context, &options.image)?;
    let args = command(&image, options)?;
    let task = Task { image: &image, options: &options.image, mounts: Vec::new() };
    task.run(context, room, |_| Ok(args.clone()))
}

pub(crate) fn shell(context: &mut Context, room: Room, options: &Shell) -> Result<u8> {
    let image = image(context, &options.image)?;
    let mut mounts = Vec::new();
    if let Some(busybox) = &options.busybox {
        let from =
            std::fs::canonicalize(busybox).with_context(|| format!("cannot find `{}`", busybox.display()))?;
        mounts.push(Mount { from, to: BUSYBOX.to_owned(), writable: false });
    }
    let has_busybox = options.busybox.is_some();
    let task = Task { image: &image, options: &options.image, mounts };
    task.run(context, room, |files| {
        if has_busybox {
            return Ok(vec![BUSYBOX.to_owned(), "sh".to_owned()]);
        }
        let mut shell = None;
        for path in SHELLS {
            if tree::is_file(files, path).with_context(|| format!("cannot look at `{path}`"))? {
                shell = Some(path);
                break;
            }
        }
        let none = || {
            Usage("the image has no shell: name a static busybox of this machine with --busybox".to_owned())
        };
        Ok(vec![shell.ok_or_else(none)?.to_owned()])
    })
}

fn image(context: &Context, options: &Started) -> Result<Image> {
    context.repository.image(&options.name, &options.platform.get())
}

/// The program of an image, and its arguments.
fn command(image: &Image, options: &Run) -> Result<Vec<String>> {
    let settings = &image.config.config;
    let mut args = match &options.process {
        None => settings.entrypoint.clone(),
        Some(wanted) => {
            let (built, _) = Built::read(&image.config);
            let processes = built.build.map(|build| build.processes).unwrap_or_default();
            let types: Vec<&str> = processes.iter().map(|process| process.r#type.as_str()).collect();
            if !types.contains(&wanted.as_str()) {
                let there =
                    if types.is_empty() { "none".to_owned() } else { format!("`{}`", types.join("`, `")) };
                let text = format!("`{}` has no process `{wanted}`; it has {there}", options.image.name);
                return Err(Usage(text).into());
            }
            vec![format!("{PROCESSES}/{wanted}")]
        }
    };
    if options.args.is_empty() && options.process.is_none() {
        args.extend(settings.cmd.iter().cloned());
    } else {
        args.extend(options.args.iter().cloned());
    }
    if args.is_empty() {
        let text = format!("`{}` does not say what it starts: give a program after `--`", options.image.name);
        return Err(Usage(text).into());
    }
    Ok(args)
}

/// What is run of an image.
struct Task<'a> {
    image: &'a Image,
    options: &'a Started,
    mounts: Vec<Mount>,
}

impl Task<'_> {
    /// Runs it; `args` is given the image's files.
    fn run(
        self,
        context: &Context,
        room: Room,
        args: impl FnOnce(&Path) -> Result<Vec<String>>,
    ) -> Result<u8> {
        let progress = &context.progress;
        let shop = Shop::open(room, &self.options.sandboxed, &self.options.publish, progress)?;
        let unpacked = shop.unpacked(self.image, progress)?;
        let tree: Tree = shop.tree(&unpacked.files, "run", progress)?;
        let settings = &self.image.config.config;
        let mut env = settings.env.clone();
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        if terminal {
            set(&mut env, "TERM", "xterm");
        }
        for (name, value) in self
            .options
            .env
            .iter()
            .map(|text| variable(text))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
        {
            set(&mut env, &name, &value);
        }
        let who = identify(&unpacked.files, &settings.user).context("cannot tell who the image's user is")?;
        let sandbox = Sandbox {
            root: tree.path().to_owned(),
            writable_root: true,
            args: args(&unpacked.files)?,
            env,
            working_dir: Some(&settings.working_dir)
                .filter(|dir| !dir.is_empty())
                .map_or("/", |dir| dir)
                .to_owned(),
            user: User { uid: who.owner.uid, gid: who.owner.gid },
            groups: who.groups,
            new_privileges: false,
            mounts: self.options.sandboxed.volume.iter().cloned().chain(self.mounts).collect(),
            network: shop.network.clone(),
            limits: self.options.sandboxed.limits(),
            terminal,
        };
        let streams = (Stdio::inherit(), Stdio::inherit(), Stdio::inherit());
        let ended = shop.run(&sandbox, "run", progress, streams);
        drop(tree);
        shop.end()?;
        Ok(ended?.code)
    }
}
