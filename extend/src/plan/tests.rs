use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::language::parse;

mod stages;

fn config() -> ImageConfig {
    serde_json::from_value(json!({
        "architecture": "arm64", "variant": "v8", "os": "linux",
        "config": {"User": "1000:1000", "Env": ["PATH=/bin", "LANG=C"], "Cmd": ["/bin/sh"], "WorkingDir": "/home/x"},
        "rootfs": {"type": "layers", "diff_ids": []}
    }))
    .unwrap()
}

/// What a Dockerfile comes to where each image has this configuration.
fn build_on(config: &ImageConfig, text: &str, args: &[(&str, &str)]) -> Result<Build, String> {
    let args: Vec<_> = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let wanted = Wanted { target: None, args: &args, platform: &config.platform() };
    let dockerfile = parse(text).map_err(|error| error.to_string())?;
    Build::of(&dockerfile, &wanted, &mut |_, _| Ok(config.clone())).map_err(|error| error.to_string())
}

fn plan_on(config: &ImageConfig, text: &str, args: &[(&str, &str)]) -> Result<Plan, String> {
    build_on(config, text, args).map(|mut build| build.stages.pop().unwrap().plan)
}

fn plan(text: &str, args: &[(&str, &str)]) -> Plan {
    plan_on(&config(), text, args).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn program(plan: &Plan) -> &Program {
    match &plan.steps.last().unwrap().action {
        Action::Run(program) => program,
        other => panic!("{other:?}"),
    }
}

#[test]
fn arguments_have_scopes() {
    for (text, args, want) in [
        ("ARG a=1\nFROM x\nARG b=$a\nRUN :", &[][..], &[("b", "")][..]),
        ("ARG a=1\nFROM x\nARG a\nARG b=$a\nRUN :", &[], &[("a", "1"), ("b", "1")]),
        ("ARG a=1 c=${a}2\nFROM x\nARG c\nRUN :", &[("a", "7")], &[("c", "72")]),
        ("FROM x\nARG a=1\nRUN :", &[("a", "2"), ("z", "3")], &[("a", "2")]),
        ("FROM x\nARG a\nRUN :", &[], &[]),
        ("FROM x\nARG a=1\nENV a=2 b=$a\nRUN :", &[("a", "3")], &[("a", "2"), ("b", "3")]),
        ("FROM x\nENV a=2\nARG a=1\nENV b=$a\nRUN :", &[], &[("a", "2"), ("b", "2")]),
        ("FROM x\nENV a=1\nENV a=2 b=$a\nRUN :", &[], &[("a", "2"), ("b", "1")]),
        (
            "FROM x\nARG TARGETARCH TARGETPLATFORM\nRUN :",
            &[],
            &[("TARGETARCH", "arm64"), ("TARGETPLATFORM", "linux/arm64/v8")],
        ),
        ("FROM x\nRUN :", &[("http_proxy", "p"), ("other", "q")], &[]),
        ("FROM x\nRUN :\nARG late=1", &[], &[]),
    ] {
        let plan = plan(text, args);
        let mut found = program(&plan).env.clone();
        assert_eq!(found.remove("PATH").as_deref(), Some("/bin"), "{text}");
        assert_eq!(found.remove("LANG").as_deref(), Some("C"), "{text}");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn arguments_that_need_not_be_declared_are_the_file_s_own_if_they_are() {
    for (declared, env, proxy) in [
        ("", None, Some("given")),
        ("ARG http_proxy", Some("given"), None),
        ("ENV http_proxy=own", Some("own"), None),
    ] {
        let plan = plan(&format!("FROM x\n{declared}\nRUN :"), &[("http_proxy", "given")]);
        let Program { env: variables, proxies, .. } = program(&plan);
        let of = |all: &BTreeMap<String, String>| all.get("http_proxy").cloned();
        assert_eq!((of(variables).as_deref(), of(proxies).as_deref()), (env, proxy), "{declared}");
    }
}

#[test]
fn programs() {
    let words = |words: &[&str]| Command::Words(words.iter().map(|&word| word.to_owned()).collect());
    for (text, want) in [
        ("RUN a $b", words(&["/bin/sh", "-c", "a $b"])),
        ("RUN [\"a\", \"$b\"]", words(&["a", "$b"])),
        (
            "SHELL [\"/bin/ash\", \"-eo\", \"pipefail\", \"-c\"]\nRUN a",
            words(&["/bin/ash", "-eo", "pipefail", "-c", "a"]),
        ),
        ("RUN <<E\na\nb $c\nE", words(&["/bin/sh", "-c", "a\nb $c\n"])),
        ("RUN <<-E\n\ta\n\tE", words(&["/bin/sh", "-c", "a\n"])),
        ("RUN 3<<\"E F\"\na\nE\nE F", words(&["/bin/sh", "-c", "a\nE\n"])),
        ("RUN <<E\n#!/bin/x\na\nE", Command::Script("#!/bin/x\na\n".into())),
        ("RUN cat <<E > /x\na\nE\n", words(&["/bin/sh", "-c", "cat <<E > /x\na\nE"])),
        ("RUN <<A cat <<B\na\nA\nb\nB\n", words(&["/bin/sh", "-c", "<<A cat <<B\na\nA\nb\nB"])),
    ] {
        assert_eq!(program(&plan(&format!("FROM x\n{text}"), &[])).command, want, "{text}");
    }
    let plan = plan("FROM x\nUSER root\nWORKDIR /a/../b\nARG d=c\nWORKDIR $d\nRUN x", &[]);
    let Program { user, dir, .. } = program(&plan);
    assert_eq!((user.as_str(), dir.as_str()), ("root", "/b/c"));
    let MakeDir { path, user } = MakeDir::of(&plan.steps[0].action);
    assert_eq!((path, user, plan.steps[0].line), ("/b", "root", 3));
    assert_eq!(plan.config.config.working_dir, "/b/c");
}

struct MakeDir<'a> {
    path: &'a str,
    user: &'a str,
}

impl<'a> MakeDir<'a> {
    fn of(action: &'a Action) -> Self {
        match action {
            Action::MakeDir { path, user } => Self { path, user },
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_copied() {
    let copying =
        |text: &str| match plan(&format!("FROM x\nENV d=dir\n{text}"), &[]).steps.pop().unwrap().action {
            Action::Copy(copying) => copying,
            other => panic!("{other:?}"),
        };
    for (text, target, unpacks) in [
        ("COPY a b", "/home/x/b", false),
        ("COPY a /b", "/b", false),
        ("COPY a /b/", "/b/", false),
        ("COPY a .", "/home/x/", false),
        ("COPY a b ./$d/", "/home/x/dir/", false),
        ("COPY a ..", "/home/", false),
        ("COPY a /", "/", false),
        ("COPY a ../../../../etc", "/etc", false),
        ("ADD a.tar b", "/home/x/b", true),
        ("ADD --unpack=false a.tar b", "/home/x/b", false),
    ] {
        let found = copying(text);
        assert_eq!((found.target.as_str(), found.unpacks), (target, unpacks), "{text}");
    }
    let found = copying(
        "COPY --chown=$d:1 --chmod=$u${e:-600} --exclude=*.$d <<E <<'F' '$d' $d/x /y/\n'$d'\nE\n$d\nF",
    );
    assert_eq!((found.chown.as_deref(), found.chmod), (Some("dir:1"), Some(Permissions::Exactly(0o600))));
    assert!(found.exclude.leaves_out(b"a.dir"));
    let text = |name: &str, contents: &str| Origin::Text { name: name.into(), contents: contents.into() };
    let path = |path: &str| Origin::Context(path.into());
    assert_eq!(found.sources, [text("E", "'dir'\n"), text("F", "$d\n"), path("$d"), path("dir/x")]);
}

#[test]
fn settings_of_containers() {
    let plan = plan(
        "FROM x\nENV LANG=de PORT=80\nLABEL a=\"b $LANG\" c=d\nEXPOSE $PORT 127.0.0.1:8080:5000-5001/UDP [::1]::90 8081:91\nVOLUME /v$PORT [x\nSTOPSIGNAL SIGUSR1\n\
         HEALTHCHECK --interval=1s --timeout=0s CMD curl x\nSHELL [\"/bin/ash\", \"-c\"]\nENTRYPOINT run $x\nONBUILD RUN x\nUSER app\nMAINTAINER me\n\
         CMD [\"a\"]",
        &[],
    );
    let found = serde_json::to_value(&plan.config).unwrap();
    let want = json!({
        "architecture": "arm64", "variant": "v8", "os": "linux", "author": "me",
        "config": {"User": "app", "Env": ["PATH=/bin", "LANG=de", "PORT=80"], "Cmd": ["a"], "WorkingDir": "/home/x",
            "Entrypoint": ["/bin/ash", "-c", "run $x"], "Labels": {"a": "b de", "c": "d"},
            "ExposedPorts": {"80/tcp": {}, "5000/udp": {}, "5001/udp": {}, "90/tcp": {}, "91/tcp": {}}, "Volumes": {"/v80": {}, "[x": {}},
            "StopSignal": "SIGUSR1", "Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 1_000_000_000},
            "Shell": ["/bin/ash", "-c"], "OnBuild": ["RUN x"]},
        "rootfs": {"type": "layers", "diff_ids": []}
    });
    assert_eq!(found, want);
    assert!(plan.steps.is_empty());
}

#[test]
fn an_empty_user_is_nobody_in_particular() {
    assert_eq!(plan("FROM x\nUSER a\nARG user_id\nUSER ${user_id}", &[]).config.config.user, "");
}

#[test]
fn a_new_entrypoint_takes_the_arguments_away() {
    for (text, want) in
        [("ENTRYPOINT [\"a\"]", &[][..]), ("CMD [\"b\"]\nENTRYPOINT [\"a\"]", &["b"]), ("CMD", &[])]
    {
        assert_eq!(plan(&format!("FROM x\n{text}"), &[]).config.config.cmd, want, "{text}");
    }
}

#[test]
fn triggers_come_first() {
    let mut config = config();
    config.config.rest.insert("OnBuild".into(), json!(["ENV a=1", "RUN x $a"]));
    let plan = plan_on(&config, "FROM x\nRUN y", &[]).unwrap();
    let found: Vec<_> = plan.steps.iter().map(|step| (step.line, step.text.as_str())).collect();
    assert_eq!(found, [(0, "RUN x $a"), (2, "RUN y")]);
    assert_eq!(program(&plan).env["a"], "1");
    assert!(!plan.config.config.rest.contains_key("OnBuild"));
    config.config.rest.insert("OnBuild".into(), json!(["NO"]));
    let error = plan_on(&config, "FROM x\nRUN y", &[]).unwrap_err();
    assert!(error.starts_with("line 1: ONBUILD of the image that it begins from: unknown"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is() {
    for (text, want) in [
        ("FROM x\nRUN --security=insecure y", "line 2: RUN --security=insecure is not"),
        ("FROM x\nRUN []", "line 2: RUN has no program"),
        ("FROM x\nENV u=git@x:y.git\nADD $u d", "line 3: ADD of `$u` is not supported, as it is a git repo"),
        ("FROM x\nADD https://x/y.git?a#b d", "line 2: ADD of `https://x/y.git?a#b` is not supported"),
        ("FROM x\nADD https://x/ d/", "line 2: ADD of `https://x/`: the address has no file's name"),
        ("FROM x\nADD https://x .", "line 2: ADD of `https://x`: the address has no file's name"),
        ("FROM x\nADD --checksum=md5:0 https://x/y d", "line 2: --checksum is `md5:0`; it is `sha256:`"),
        ("FROM x\nADD --checksum=sha256:0 x y d/", "line 2: --checksum is for"),
        ("FROM x\nCOPY --from=y <<E d\nE", "line 2: what is written here cannot come --from"),
        ("FROM x\nADD --checksum=sha256:0 y d", "line 2: --checksum is for"),
        ("FROM x\nCOPY a b c", "line 2: `c` must be a folder"),
        ("FROM x\nCOPY --chmod=x b c", "line 2: `x` are no permissions"),
        ("FROM x\nCOPY --exclude=[ b c", "line 2: the pattern `[` has"),
        ("FROM x\nCOPY \"b c", "line 2: COPY requires"),
        ("FROM x\nENV a=\"b", "line 2: a `\"` is not ended"),
        ("FROM x\nENV a=${b:?'no b'}", "line 2: `b` is not set or empty: no b"),
        ("ARG a=${\nFROM x", "line 1: there is no name"),
        ("FROM x\nENV $u=1", "line 2: the name before `=1` is empty"),
        ("FROM x\nLABEL a=b $u=1", "line 2: the name before `=1` is empty"),
        ("FROM x\nEXPOSE a", "line 2: `a` is no port"),
        ("FROM x\nEXPOSE 2-1", "line 2: `2-1` is no port"),
        ("FROM x\nEXPOSE 1/x", "line 2: `1/x` is no port"),
        ("FROM x\nEXPOSE 80:", "line 2: `80:` is no port"),
        ("FROM x\nEXPOSE a:80", "line 2: `a:80` is no port"),
        ("FROM x\nEXPOSE a:1:80", "line 2: `a:1:80` is no port"),
        ("FROM x\nVOLUME $u", "line 2: VOLUME has an empty path"),
        ("FROM x\nSTOPSIGNAL 99", "line 2: `99` is no signal"),
    ] {
        let error = plan_on(&config(), text, &[]).expect_err(text);
        assert!(error.starts_with(want), "{text}: {error}");
    }
}
