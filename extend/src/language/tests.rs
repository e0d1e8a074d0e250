//! Whole Dockerfiles: good ones, a corpus of malformed ones, and whatever else.

use proptest::prelude::*;

use super::*;

fn only_kind(text: &str) -> Kind {
    let mut dockerfile = parse(&format!("FROM x\n{text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut stage = dockerfile.stages.pop().unwrap();
    assert_eq!(stage.instructions.len(), 1, "{text}");
    stage.instructions.pop().unwrap().kind
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.to_owned())
}

fn paths(sources: &[&str], target: &str) -> Copy {
    let sources = sources.iter().map(|&path| Source::Path(path.to_owned())).collect();
    Copy { sources, target: target.to_owned(), ..Copy::default() }
}

fn plain_run(command: CommandLine) -> Run {
    Run { command, here_documents: Vec::new(), mounts: Vec::new(), network: Network::Default, security: None }
}

#[test]
fn instructions() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let some = |text: &str| Some(text.to_owned());
    for (text, want) in [
        ("run  echo  a ", Kind::Run(plain_run(shell("echo  a")))),
        ("RUN", Kind::Run(plain_run(shell("")))),
        ("RUN [\"a\", \"b c\"]", Kind::Run(plain_run(CommandLine::Exec(texts(&["a", "b c"]))))),
        ("RUN [ -f x ] && y", Kind::Run(plain_run(shell("[ -f x ] && y")))),
        (
            "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none x --y",
            Kind::Run(Run {
                mounts: ["type=cache,target=/c", "type=tmpfs,target=/t"]
                    .map(|text| MountFlag::parse(text).unwrap())
                    .into(),
                network: Network::None,
                ..plain_run(shell("x --y"))
            }),
        ),
        ("RUN -- --x", Kind::Run(plain_run(shell("--x")))),
        ("COPY a b /c/", Kind::Copy(paths(&["a", "b"], "/c/"))),
        ("COPY [\"a b\", \"c\"]", Kind::Copy(paths(&["a b"], "c"))),
        (
            "COPY --from=0 --parents --chown=1:$g --chmod=0755 --link --exclude=*.md --exclude=x . .",
            Kind::Copy(Copy {
                from: some("0"),
                parents: true,
                chown: some("1:$g"),
                chmod: some("0755"),
                exclude: texts(&["*.md", "x"]),
                ..paths(&["."], ".")
            }),
        ),
        (
            "ADD --checksum=sha256:1 --unpack=false --link=false https://x/y.tar /",
            Kind::Add(Copy {
                checksum: some("sha256:1"),
                unpack: Some(false),
                ..paths(&["https://x/y.tar"], "/")
            }),
        ),
        (
            "ENV a=1 b=\"2 3\" c=$a\\ x",
            Kind::Env(vec![pair("a", "1"), pair("b", "\"2 3\""), pair("c", "$a\\ x")]),
        ),
        ("ENV a  1 b=2", Kind::Env(vec![pair("a", "1 b=2")])),
        ("LABEL \"a.b\"=c d=", Kind::Label(vec![pair("\"a.b\"", "c"), pair("d", "")])),
        (
            "ARG a b=c d=",
            Kind::Arg(vec![
                Argument { name: "a".into(), default: None },
                Argument { name: "b".into(), default: some("c") },
                Argument { name: "d".into(), default: some("") },
            ]),
        ),
        ("USER a:b", Kind::User("a:b".into())),
        ("WORKDIR /a b", Kind::WorkDir("/a b".into())),
        ("VOLUME /a /b", Kind::Volume(texts(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Kind::Volume(texts(&["/a b"]))),
        ("EXPOSE 80 $p/tcp", Kind::Expose(texts(&["80", "$p/tcp"]))),
        ("STOPSIGNAL SIGTERM", Kind::StopSignal("SIGTERM".into())),
        ("SHELL [\"/bin/sh\", \"-c\"]", Kind::Shell(texts(&["/bin/sh", "-c"]))),
        ("CMD", Kind::Cmd(shell(""))),
        ("CMD [\"a\"]", Kind::Cmd(CommandLine::Exec(texts(&["a"])))),
        ("ENTRYPOINT a b", Kind::Entrypoint(shell("a b"))),
        ("MAINTAINER me <me@example.com>", Kind::Maintainer("me <me@example.com>".into())),
        ("HEALTHCHECK NONE", Kind::HealthCheck(None)),
        (
            "HEALTHCHECK --interval=5s --retries=3 cmd [\"a\"]",
            Kind::HealthCheck(Some(HealthCheck {
                command: CommandLine::Exec(texts(&["a"])),
                interval: Some(5_000_000_000),
                timeout: None,
                start_period: None,
                start_interval: None,
                retries: Some(3),
            })),
        ),
        ("ONBUILD run x", Kind::OnBuild("run x".into())),
        ("ONBUILD COPY <<E /x\n1\nE\n", Kind::OnBuild("COPY <<E /x\n1\nE".into())),
    ] {
        assert_eq!(only_kind(text), want, "{text}");
    }
    let Kind::OnBuild(trigger) = only_kind("ONBUILD COPY <<E /x\n1\nE\n") else { panic!() };
    assert!(matches!(parse_trigger(&trigger).unwrap().kind, Kind::Copy(_)));
    for text in ["", "FROM x", "RUN a\nRUN b", "NO", "COPY <<E /x\n1"] {
        assert!(parse_trigger(text).is_err(), "{text}");
    }
}

#[test]
fn lines() {
    let text = "\u{feff}# syntax=docker/dockerfile:1\r\n# escape=`\r\n#comment\r\nARG v=1\r\nFROM --platform=$P x:${v} As Base\r\n\
                RUN a `\r\n# comment\r\n\r\n  && b `  \r\n  && c\\\r\n  # comment\r\nUSER d``\r\nFROM base\r\nRUN e `";
    let dockerfile = parse(text).unwrap();
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(dockerfile.global_args.len(), 1);
    let [first, second] = &dockerfile.stages[..] else { panic!("{dockerfile:?}") };
    assert_eq!((first.line, first.base.as_str(), first.name.as_deref()), (5, "x:${v}", Some("base")));
    assert_eq!(first.platform.as_deref(), Some("$P"));
    let found: Vec<_> = first.instructions.iter().map(|it| (it.line, it.text.as_str())).collect();
    assert_eq!(found, [(6, "RUN a   && b   && c\\"), (12, "USER d``")]);
    assert_eq!((second.base.as_str(), second.instructions[0].text.as_str()), ("base", "RUN e"));
    assert_eq!(parse("# escape=`\n\n# escape=\\\nFROM x").unwrap().escape, '`');
    assert_eq!(parse("# other=x\n# escape=`\nFROM x").unwrap().escape, '`');
    assert_eq!(parse("# text\n# escape=`\nFROM x").unwrap().escape, '\\');
}

#[test]
fn here_documents() {
    let here = |name: &str, expands, strips_tabs, text: &str| HereDocument {
        name: name.into(),
        expands,
        strips_tabs,
        text: text.into(),
    };
    let text = "FROM x\nRUN <<A cat 3<<-\"B C\" <<'D' > /x\n1 \\\n# 2\nA\n\t3\n\tBC\nB C\n\tB C\nD\nCOPY <<E <<F a /y/\n$x\nE\nF\nUSER z";
    let stage = parse(text).unwrap().stages.pop().unwrap();
    let Kind::Run(run) = &stage.instructions[0].kind else { panic!() };
    assert_eq!(
        run.here_documents,
        [
            here("A", true, false, "1 \\\n# 2\n"),
            here("B C", false, true, "\t3\n\tBC\n"),
            here("D", false, false, "\tB C\n"),
        ]
    );
    let Kind::Copy(copy) = &stage.instructions[1].kind else { panic!() };
    assert_eq!(
        copy.sources,
        [
            Source::Here(here("E", true, false, "$x\n")),
            Source::Here(here("F", true, false, "")),
            Source::Path("a".into())
        ]
    );
    assert_eq!(stage.instructions[2].text, "USER z");
    let Kind::Run(run) = only_kind("RUN <<-X\n\ta\n\t\tb\n\tX\n") else { panic!() };
    assert_eq!(run.here_documents[0].contents(), "a\nb\n");
    let Kind::Run(run) = only_kind("RUN x=$((1<<2)) && cat \"<<E\" '<<E' a<<") else { panic!() };
    assert_eq!(run.here_documents, []);
    assert!(matches!(only_kind("RUN [\"cat\", \"<<E\"]"), Kind::Run(_)));
}

/// Text, line, and what is said.
const MALFORMED: [(&str, usize, &str); 65] = [
    ("", 1, "there is no FROM"),
    ("# only a comment\n\n", 2, "there is no FROM"),
    ("ARG x\n", 1, "there is no FROM"),
    ("RUN x\n", 1, "RUN comes before FROM"),
    ("ARG x\nUSER y\nFROM z\n", 2, "USER comes before FROM"),
    ("FROM\n", 1, "FROM requires either one or three arguments"),
    ("FROM a b\n", 1, "FROM requires either one or three arguments"),
    ("FROM a AS\n", 1, "FROM requires either one or three arguments"),
    ("FROM a AT b\n", 1, "FROM requires either one or three arguments"),
    ("FROM a AS b c\n", 1, "FROM requires either one or three arguments"),
    ("FROM a AS 1b\n", 1, "a stage cannot be called `1b`"),
    ("FROM a AS b/c\n", 1, "a stage cannot be called `b/c`"),
    ("FROM --platfrom=x a\n", 1, "FROM has no flag `--platfrom`; it has --platform"),
    ("FROM --platform a\n", 1, "--platform of FROM has no value"),
    ("FROM --platform=a --platform=b c\n", 1, "--platform is given 2 times"),
    ("FROM a\nRUNN x\n", 2, "unknown instruction: RUNN; did you mean RUN?"),
    ("FROM a\n\nCPOY x y\n", 3, "unknown instruction: CPOY; did you mean COPY?"),
    ("FROM a\n&& apt-get update\n", 2, "unknown instruction: &&; a line that goes on needs a backslash"),
    ("FROM a\n<<<<<<< HEAD\n", 2, "unknown instruction: <<<<<<<"),
    ("FROM a\nRUN a \\\n b \\\n c\nEVN x=y\n", 5, "unknown instruction: EVN; did you mean ENV?"),
    ("FROM a\nRUN <<E\nx\n", 2, "the here-document `E` does not end"),
    ("FROM a\nRUN a\nCOPY <<-E /x\n E\n", 3, "the here-document `E` does not end"),
    ("FROM a\nRUN <<A <<B\nA\nb\n", 2, "the here-document `B` does not end"),
    ("FROM a\nRUN --mout=x y\n", 2, "RUN has no flag `--mout`; it has --mount, --network, --security"),
    ("FROM a\nRUN --mount y\n", 2, "--mount of RUN has no value"),
    ("FROM a\nRUN --network=a --network=b y\n", 2, "--network is given 2 times"),
    ("FROM a\nRUN --network=bridge y\n", 2, "--network is `bridge`; it is `default`, `none` or `host`"),
    ("FROM a\nRUN --mount=type=x y\n", 2, "there is no --mount of type `x`"),
    ("FROM a\nRUN --mount=target=/x,size=1 y\n", 2, "--mount=type=bind has no option `size`"),
    ("FROM a\nCOPY\n", 2, "COPY requires at least one argument"),
    ("FROM a\nCOPY x\n", 2, "COPY requires at least two arguments"),
    ("FROM a\nCOPY [\"x\"]\n", 2, "COPY requires at least two arguments"),
    ("FROM a\nADD []\n", 2, "ADD requires at least two arguments"),
    ("FROM a\nCOPY --form=b x y\n", 2, "COPY has no flag `--form`; it has --from"),
    ("FROM a\nADD --from=b x y\n", 2, "ADD has no flag `--from`"),
    ("FROM a\nCOPY --checksum=b x y\n", 2, "COPY has no flag `--checksum`"),
    ("FROM a\nCOPY --chown x y\n", 2, "--chown of COPY has no value"),
    ("FROM a\nCOPY --link=maybe x y\n", 2, "--link is `maybe`; it is `true` or `false`"),
    ("FROM a\nCOPY x <<E\nE\n", 2, "COPY cannot write to the here-document `<<E`"),
    ("FROM a\nENV\n", 2, "ENV requires at least one argument"),
    ("FROM a\nENV x\n", 2, "ENV must have two arguments: `ENV x=value`"),
    ("FROM a\nENV x=1 y\n", 2, "`y` has no `=`"),
    ("FROM a\nENV =1\n", 2, "there is no name before `=1`"),
    ("FROM a\nLABEL x\n", 2, "LABEL must have two arguments"),
    ("FROM a\nLABEL \"\"=x\n", 2, "there is no name before `=x`"),
    ("FROM a\nENV --x=y z=1\n", 2, "ENV has no flags, so `--x` is none"),
    ("FROM a\nARG\n", 2, "ARG requires at least one argument"),
    ("FROM a\nARG 1x=2\n", 2, "an argument cannot be called `1x`"),
    ("FROM a\nARG =2\n", 2, "an argument cannot be called ``"),
    ("FROM a\nARG $x\n", 2, "an argument cannot be called `$x`"),
    ("FROM a\nUSER a b\n", 2, "USER requires exactly one argument, and has 2"),
    ("FROM a\nSTOPSIGNAL 9 15\n", 2, "STOPSIGNAL requires exactly one argument"),
    ("FROM a\nSHELL /bin/sh -c\n", 2, "SHELL requires a list"),
    ("FROM a\nSHELL []\n", 2, "SHELL requires a list"),
    ("FROM a\nCMD [\"a\", 1]\n", 2, "element 2 of the list is no text"),
    ("FROM a\nRUN [null]\n", 2, "element 1 of the list is no text"),
    ("FROM a\nCOPY [\"a\", {\"b\": 1}]\n", 2, "element 2 of the list is no text"),
    ("FROM a\nHEALTHCHECK curl x\n", 2, "HEALTHCHECK is followed by CMD or NONE, not by `curl`"),
    ("FROM a\nHEALTHCHECK CMD\n", 2, "HEALTHCHECK CMD has no command"),
    ("FROM a\nHEALTHCHECK NONE x\n", 2, "HEALTHCHECK NONE takes no arguments"),
    ("FROM a\nHEALTHCHECK --interval=5 CMD x\n", 2, "`5` is no time"),
    ("FROM a\nHEALTHCHECK --interval=999us CMD x\n", 2, "--interval is less than 1ms"),
    ("FROM a\nHEALTHCHECK --retries=-1 CMD x\n", 2, "--retries is `-1`"),
    ("FROM a\nONBUILD FROM b\n", 2, "FROM cannot be the instruction of an ONBUILD"),
    ("FROM a\nONBUILD ONBUILD RUN x\n", 2, "ONBUILD cannot be the instruction of an ONBUILD"),
];

#[test]
fn malformed() {
    for (text, line, want) in MALFORMED {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.problem.starts_with(want), "{text}: {error}");
        // What is wrong, and what to do.
        assert!(
            error.problem.contains([';', ':', '?']) || error.problem.contains("requires"),
            "{text}: {error}"
        );
    }
    for (text, line, want) in [
        ("# escape=x\nFROM a\n", 1, "the escape character cannot be `x`"),
        ("# escape=`\n# escape=`\nFROM a\n", 2, "the directive `escape` is there twice"),
        ("FROM a\nONBUILD RUNN x\n", 2, "unknown instruction: RUNN"),
        ("FROM a\nONBUILD COPY x\n", 2, "COPY requires at least two arguments"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!((error.line, error.problem.starts_with(want)), (line, true), "{text}: {error}");
    }
    let long = format!("FROM a\n#{}", "x".repeat(MAX_TEXT));
    assert!(parse(&long).unwrap_err().problem.contains("more than 4194304 bytes"));
}

/// Pieces that mean something, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "a",
        " AS b",
        "\n",
        "\r\n",
        "\\\n",
        "RUN ",
        "COPY ",
        "ADD ",
        "--from=0 ",
        "--",
        "<<E",
        "<<-\"E\"",
        "\nE\n",
        "#",
        "# escape=`\n",
        "ENV ",
        "ARG ",
        "x=$y",
        "${x:-",
        "${",
        "}",
        "\"",
        "'",
        "[\"a\"]",
        " ",
        "\t",
        "ü",
        "\\",
        "`",
        "ONBUILD ",
        "HEALTHCHECK ",
        "--interval=1s ",
        "CMD ",
        "=",
        "$",
        ":",
        "?",
        "//",
        "*",
        "%%",
        "SHELL ",
        "VOLUME ",
        "\u{feff}",
        "!",
        "[",
        "**/",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in prop_oneof![pieces(), pieces().prop_map(|text| format!("FROM a\n{text}")), any::<String>()]) {
        let lines = text.split('\n').count();
        match parse(&text) {
            Err(error) => {
                prop_assert!((1..=lines).contains(&error.line), "{error}");
                prop_assert!(!error.problem.is_empty());
            }
            Ok(dockerfile) => {
                let stages = dockerfile.stages.iter();
                let instructions = stages.clone().flat_map(|stage| &stage.instructions).chain(&dockerfile.global_args);
                let mut found: Vec<usize> = instructions.map(|it| it.line).chain(stages.map(|stage| stage.line)).collect();
                found.sort_unstable();
                prop_assert!(found.iter().all(|line| (1..=lines).contains(line)));
                // Each begins on a line of its own.
                prop_assert!(found.windows(2).all(|two| two[0] < two[1]));
            }
        }
    }

    #[test]
    fn no_word_is_too_much(word in prop_oneof![pieces(), any::<String>()], escape in prop::sample::select(vec!['\\', '`'])) {
        let value = |name: &str| name.len().is_multiple_of(2).then(|| name.repeat(3));
        if let Ok(text) = expand(&word, escape, &value) {
            prop_assert!(text.len() <= MAX_VALUE);
        }
        if !word.contains(['$', '\'', '"', '\\', '`']) {
            prop_assert_eq!(expand(&word, escape, &value), Ok(word));
        }
    }

    #[test]
    fn no_pattern_is_too_much(text in prop_oneof![pieces(), any::<String>()], path in "[a-c/.]{0,12}") {
        if let Ok(pattern) = Pattern::of_path(&text) {
            pattern.matches(path.as_bytes());
        }
        if let Ok(rules) = IgnoreRules::parse(&text) {
            rules.leaves_out(path.as_bytes());
        }
        if !Pattern::is_needed(&path) {
            prop_assert!(Pattern::of_name(&path).unwrap().matches(path.as_bytes()));
        }
    }
}
