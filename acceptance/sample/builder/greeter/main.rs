//! A whole buildpack as one static executable, because the sample's build image holds no shell: `bin/detect`, `bin/build`, and
//! what its layer brings into the app image, each by the name that it is called with.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const GREETING: &str = "greeting.txt";

fn main() -> ExitCode {
    let called = env::args_os().next().unwrap_or_default();
    let done = match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        // It takes part if there is something to say.
        Some("detect") if !Path::new(GREETING).exists() => return ExitCode::from(100),
        Some("detect") => Ok(()),
        Some("build") => build(),
        _ => greet(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One launch layer with this program and a variable for it; one process.
fn build() -> Result<(), Box<dyn Error>> {
    let layers = PathBuf::from(env::var("CNB_LAYERS_DIR")?);
    let layer = layers.join("greeter");
    println!("Installing the greeter");
    fs::create_dir_all(layer.join("bin"))?;
    fs::create_dir_all(layer.join("env.launch"))?;
    fs::copy(env::current_exe()?, layer.join("bin/greet"))?;
    fs::write(layer.join("env.launch/GREETER.default"), "sample/greeter")?;
    fs::write(layers.join("greeter.toml"), "[types]\nlaunch = true\n")?;
    fs::write(layers.join("launch.toml"), "[[processes]]\ntype = \"web\"\ncommand = [\"greet\"]\ndefault = true\n")?;
    Ok(())
}

fn greet() -> Result<(), Box<dyn Error>> {
    let greeter = env::var("GREETER")?;
    for line in fs::read_to_string(GREETING)?.lines() {
        println!("{greeter}: {line}");
    }
    Ok(())
}
