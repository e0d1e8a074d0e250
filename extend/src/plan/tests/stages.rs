//! Several stages, what they take from each other, and what programs see.

use proptest::prelude::*;

use super::*;
use crate::plan::planner::below;

/// The stages as texts: name, base, and where each step's files come from.
fn told(build: &Build) -> Vec<String> {
    let from = |from: &From| match from {
        From::Context => "context".to_owned(),
        From::Stage(place) => format!("stage {place}"),
        From::Image(name) => format!("image {name}"),
    };
    let stage = |stage: &PlannedStage| {
        let base = match &stage.base {
            Base::Scratch => "scratch".to_owned(),
            Base::Stage(place) => format!("stage {place}"),
            Base::Image { name, platform } => format!("image {name} {platform}"),
        };
        let steps = stage.plan.steps.iter().map(|step| match &step.action {
            Action::Copy(copying) => from(&copying.from),
            Action::Run(program) => {
                let froms = program.mounts.iter().map(|mount| match mount {
                    Mount::Bind { from: it, .. } | Mount::Cache { from: Some(it), .. } => from(it),
                    _ => "nothing".to_owned(),
                });
                format!("run {}", froms.collect::<Vec<_>>().join("+"))
            }
            Action::MakeDir { path, .. } => path.clone(),
        });
        format!("{} on {base}: {}", stage.name, steps.collect::<Vec<_>>().join(", "))
    };
    build.stages.iter().map(stage).collect()
}

fn build_to(text: &str, target: Option<&str>) -> Result<(Build, Vec<String>), String> {
    let config = config();
    let mut asked = Vec::new();
    let wanted = Wanted { target, args: &[], platform: &config.platform() };
    let dockerfile = parse(text).map_err(|error| error.to_string())?;
    let build = Build::of(&dockerfile, &wanted, &mut |name, platform| {
        asked.push(format!("{name} {platform}"));
        anyhow::ensure!(name != "missing", "no such image");
        Ok(config.clone())
    });
    let build = build.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    asked.sort();
    Ok((build, asked))
}

const SEVERAL: &str = "ARG v=1\nFROM --platform=linux/amd64 go:$v AS Build\nCOPY . .\nFROM unneeded\nRUN :\nFROM build AS test\nRUN --mount=from=build,target=/b :\n\
    FROM scratch\nCOPY --from=BUILD /a /a\nCOPY --from=0 /a /a\nFROM alpine AS last\nCOPY --from=3 /a /a\nCOPY --from=busybox /b /b\n\
    RUN --mount=type=cache,target=/c,from=other --mount=target=/d :";

#[test]
fn only_what_is_needed() {
    let host = "linux/arm64/v8";
    for (target, want, images) in [
        (
            None,
            &[
                "build on image go:1 linux/amd64: context",
                "3 on scratch: stage 0, stage 0",
                "last on image alpine HOST: stage 1, image busybox, run image other+context",
            ][..],
            &["alpine HOST", "busybox HOST", "go:1 linux/amd64", "other HOST"][..],
        ),
        (
            Some("TEST"),
            &["build on image go:1 linux/amd64: context", "test on stage 0: run stage 0"],
            &["go:1 linux/amd64"],
        ),
        (Some("1"), &["1 on image unneeded HOST: run "], &["unneeded HOST"]),
    ] {
        let (build, asked) = build_to(SEVERAL, target).unwrap();
        let with_host =
            |texts: &[&str]| texts.iter().map(|text| text.replace("HOST", host)).collect::<Vec<_>>();
        assert_eq!(told(&build), with_host(want), "{target:?}");
        assert_eq!(asked, with_host(images), "{target:?}");
    }
}

#[test]
fn names_of_stages() {
    for (text, want) in [
        // The last one before it that has the name; a name that comes later is an image's.
        ("FROM a AS x\nFROM b AS x\nFROM x", &["x on image b HOST: ", "2 on stage 0: "][..]),
        ("FROM x\nFROM b AS x", &["x on image b HOST: "]),
        ("FROM x AS x\nFROM x", &["x on image x HOST: ", "1 on stage 0: "]),
        ("FROM a\nCOPY --from=later /x /x\nFROM b AS later", &["later on image b HOST: "]),
        ("FROM a AS b\nFROM c\nCOPY --from=later /x /x", &["1 on image c HOST: image later"]),
    ] {
        let want: Vec<_> = want.iter().map(|text| text.replace("HOST", "linux/arm64/v8")).collect();
        assert_eq!(told(&build_to(text, None).unwrap().0), want, "{text}");
    }
}

#[test]
fn stages_hand_on_what_they_know() {
    let build = build_on(
        &config(),
        "ARG g=1\nFROM a AS x\nARG g p=2\nENV e=3\nWORKDIR /w\nONBUILD ENV t=$e\nCMD [\"c\"]\nFROM x\nARG q=$p$g$e$t\nRUN :\nFROM y\nARG p\nRUN :",
        &[("p", "5")],
    )
    .unwrap();
    let Plan { steps, config, .. } = &build.last().plan;
    assert_eq!(steps.len(), 1);
    assert_eq!(config.config.env, ["PATH=/bin", "LANG=C"]);
    let mut text =
        "ARG g=1\nFROM a AS x\nARG g p=2\nENV e=3\nWORKDIR /w\nONBUILD ENV t=$e\nCMD [\"c\"]\nFROM x"
            .to_owned();
    text.push_str("\nARG q=$p$g$e$t\nRUN :");
    let build = build_on(&super::config(), &text, &[("p", "5")]).unwrap();
    let plan = &build.last().plan;
    let env = &program(plan).env;
    assert_eq!((env["q"].as_str(), env["t"].as_str()), ("5133", "3"));
    assert_eq!(
        (program(plan).dir.as_str(), plan.config.config.cmd.as_slice()),
        ("/w", &["c".to_owned()][..])
    );
    assert!(!plan.config.config.rest.contains_key("OnBuild"));
    assert!(build.stages[0].plan.config.config.rest.contains_key("OnBuild"));
}

#[test]
fn from_nothing() {
    let plan = plan("FROM scratch\nARG TARGETARCH TARGETSTAGE BUILDOS\nRUN :", &[]);
    let found = serde_json::to_value(&plan.config).unwrap();
    let env = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        found,
        json!({"architecture": "arm64", "variant": "v8", "os": "linux", "config": {"Env": [env], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": []}})
    );
    let env = &program(&plan).env;
    assert_eq!([&env["TARGETARCH"], &env["TARGETSTAGE"], &env["BUILDOS"]], ["arm64", "default", "linux"]);
}

#[test]
fn mounts() {
    let mounts = |flags: &str| {
        program(&plan(&format!("FROM x\nENV i=id d=/data\nWORKDIR /w\nRUN {flags} :"), &[])).mounts.clone()
    };
    let cache = Mount::Cache {
        id: "/w/c".into(),
        target: "/w/c".into(),
        sharing: Sharing::Shared,
        from: None,
        source: "/".into(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        writable: true,
    };
    let secret = |id: &str, target: Option<&str>, env: Option<&str>| Mount::Secret {
        id: id.into(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    let bind = |source: &str, target: &str, writable| Mount::Bind {
        from: From::Context,
        source: source.into(),
        target: target.into(),
        writable,
    };
    for (flags, want) in [
        ("--mount=type=cache,target=c", cache),
        (
            "--mount=type=cache,id=$i,target=$d,sharing=locked,mode=0700,uid=1,gid=2,ro,from=y,source=../z",
            Mount::Cache {
                id: "id".into(),
                target: "/data".into(),
                sharing: Sharing::Locked,
                from: Some(From::Image("y".into())),
                source: "/z".into(),
                mode: 0o700,
                uid: 1,
                gid: 2,
                writable: false,
            },
        ),
        ("--mount=target=/b", bind("/", "/b", false)),
        ("--mount=type=bind,src=a/b,dst=b,rw", bind("/a/b", "/w/b", true)),
        ("--mount=destination=/b,readonly=false", bind("/", "/b", true)),
        ("--mount=type=tmpfs,target=/t", Mount::Tmpfs { target: "/t".into(), size: None }),
        ("--mount=type=tmpfs,target=/t,size=2m", Mount::Tmpfs { target: "/t".into(), size: Some(2 << 20) }),
        ("--mount=type=secret,id=a/k", secret("a/k", Some("/run/secrets/k"), None)),
        ("--mount=type=secret,target=/a/key", secret("key", Some("/a/key"), None)),
        ("--mount=type=secret,src=k,env=K", secret("k", None, Some("K"))),
        ("--mount=type=secret,env=K", secret("K", None, Some("K"))),
        ("--mount=type=secret,id=k,env=K,target=k", secret("k", Some("/w/k"), Some("K"))),
    ] {
        assert_eq!(mounts(flags), [want], "{flags}");
    }
    let found = mounts("--mount=type=secret,id=k,required,mode=0444,uid=7,gid=8");
    assert!(
        matches!(found[0], Mount::Secret { required: true, mode: 0o444, uid: 7, gid: 8, .. }),
        "{found:?}"
    );
    assert_eq!(program(&plan("FROM x\nRUN --network=host :", &[])).network, Network::Host);
}

#[test]
fn downloads() {
    let sum = format!("sha256:{}", "0".repeat(64));
    let plan = plan(
        &format!(
            "FROM x\nADD --checksum={sum} https://x/a/y.tar?z=1#f /d/\nADD --unpack http://x/y z\n\
             ADD https://x/a/?q d\nADD --unpack https://x d/"
        ),
        &[],
    );
    let origins: Vec<_> = plan
        .steps
        .iter()
        .map(|step| match &step.action {
            Action::Copy(copying) => copying.sources[0].clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let url = |url: &str, name: &str, checksum, unpacks| Origin::Url {
        url: url.into(),
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        checksum,
        unpacks,
    };
    assert_eq!(
        origins,
        [
            url("https://x/a/y.tar?z=1#f", "y.tar", Some(sum.parse().unwrap()), false),
            url("http://x/y", "y", None, true),
            url("https://x/a/?q", "", None, false),
            url("https://x", "", None, true)
        ]
    );
}

#[test]
fn the_history_has_every_instruction() {
    let plan = plan(
        "FROM x\nARG a=1 b\nENV c=$a d=2\nRUN echo $a\nWORKDIR w\nCOPY --from=y --parents --chown=$a --exclude=e f $c /t\nADD <<E /e\nE\nUSER u\n\
         LABEL l=$c\nEXPOSE 80 5-6/udp\nVOLUME /v /w\nCMD [\"a\", \"b c\"]\nENTRYPOINT e\nSHELL [\"s\", \"-c\"]\nSTOPSIGNAL 9\nHEALTHCHECK NONE\n\
         ONBUILD RUN $a",
        &[],
    );
    let found = plan.history(Some("now"), &|step| step != 1);
    let texts: Vec<_> = found.iter().map(|entry| (entry.created_by.as_str(), entry.empty_layer)).collect();
    assert_eq!(
        texts,
        [
            ("ARG a=1 b", true),
            ("ENV c=1 d=2", true),
            ("RUN |1 a=1 /bin/sh -c echo $a", false),
            ("WORKDIR /home/x/w", true),
            ("COPY --parents --chown=1 --exclude=e f 1 /t", false),
            ("ADD <<E /e", false),
            ("USER u", true),
            ("LABEL l=1", true),
            ("EXPOSE [80/tcp 5/udp 6/udp]", true),
            ("VOLUME [/v /w]", true),
            ("CMD [\"a\" \"b c\"]", true),
            ("ENTRYPOINT [\"/bin/sh\" \"-c\" \"e\"]", true),
            ("SHELL [s -c]", true),
            ("STOPSIGNAL 9", true),
            ("HEALTHCHECK NONE", true),
            ("ONBUILD RUN $a", true),
        ]
    );
    assert_eq!(found[0].created.as_deref(), Some("now"));
}

#[test]
fn what_is_wrong_with_stages() {
    for (text, want) in [
        ("FROM x\nCOPY --from=1 a b", "line 2: there is no stage 1 before this one"),
        ("FROM x AS me\nCOPY --from=me a b", "line 2: the stage `me` cannot take files from itself"),
        ("FROM x\nCOPY --from=$y a b", "line 2: `$y`: a `from` has no variables"),
        ("FROM x\nRUN --mount=from=$y,target=/b :", "line 2: `$y`: a `from` has no variables"),
        ("FROM $none", "line 1: `FROM $none` names no image"),
        ("FROM --platform=a/b/c/d x", "line 1: --platform: `a/b/c/d` is not a platform"),
        ("FROM x\nFROM missing", "line 2: image `missing`: no such image"),
        ("FROM x\nCOPY --from=missing a b", "line 2: image `missing`: no such image"),
        ("FROM x\nRUN --mount=type=cache :", "line 2: --mount=type=cache needs a `target`"),
        ("FROM x\nRUN --mount=type=tmpfs,target=/a/.. :", "line 2: --mount=type=tmpfs cannot be at `/`"),
        ("FROM x\nRUN --mount=target=/a,rw,ro :", "line 2: --mount has both `readwrite`"),
        ("FROM x\nRUN --mount=target=/a,rw=maybe :", "line 2: `readwrite` of --mount is `maybe`"),
        ("FROM x\nRUN --mount=type=cache,target=/a,mode=9 :", "line 2: `mode` of --mount is `9`"),
        ("FROM x\nRUN --mount=type=cache,target=/a,uid=4294967295 :", "line 2: `uid` of --mount is"),
        ("FROM x\nRUN --mount=type=cache,target=/a,sharing=x :", "line 2: `sharing` of --mount is `x`"),
        ("FROM x\nRUN --mount=type=tmpfs,target=/a,size=x :", "line 2: `size` of --mount is `x`"),
        ("FROM x\nRUN --mount=type=secret,id=a,src=b :", "line 2: --mount=type=secret has both"),
        ("FROM x\nRUN --mount=type=secret :", "line 2: --mount=type=secret has no `id`"),
        (
            "FROM x AS a\nONBUILD COPY --from=5 a b\nFROM a",
            "line 3: ONBUILD of the image that it begins from: there is no stage 5",
        ),
    ] {
        let error = build_to(text, None).expect_err(text);
        assert!(error.starts_with(want), "{text}: {error}");
    }
    let error = build_to("FROM x AS a\nFROM y", Some("b")).unwrap_err();
    assert_eq!(error, "there is no stage `b`; there are a");
    assert!(build_to("FROM x", Some("1")).is_err());
}

/// Few lines that would come to more than any memory.
#[test]
fn a_plan_has_an_end() {
    let much = "x".repeat(1000);
    let mut doubling = "FROM x\nENV a=0123456789\n".to_owned();
    let chain = (0..50_000).map(|number| format!("\nFROM a\nCOPY --from={number} x y"));
    for text in [
        format!("FROM x\nENV a={much}{}", "\nRUN :".repeat(100_000)),
        format!("FROM x AS a\nENV a={much}{}", "\nFROM a AS a".repeat(100_000)),
        format!("FROM x{}", "\nEXPOSE 1-65535".repeat(10_000)),
        format!("FROM x AS a{}{}", "\nONBUILD ENV a=b".repeat(30_000), chain.collect::<String>()),
        {
            for _ in 0..16 {
                doubling.push_str("ENV a=$a$a\n");
            }
            doubling.push_str(&"ENV b=$a\n".repeat(1000));
            doubling
        },
    ] {
        let error = build_to(&text, None).expect_err(&text[..100]);
        assert!(error.contains("comes to more than"), "{error}");
    }
}

proptest! {
    /// Whatever refers to whatever: only stages before are needed, and each is there.
    #[test]
    fn stages_need_only_those_before_them(
        stages in proptest::collection::vec((0..6_usize, proptest::collection::vec(0..8_usize, 0..3)), 1..6),
    ) {
        let copies = |froms: &[usize]| {
            let copy = |from: &usize| format!("COPY --from=s{from} a b\nRUN --mount=from=s{from},target=/x :\n");
            froms.iter().map(copy).collect::<String>()
        };
        let stage = |(number, (base, froms)): (usize, &(usize, Vec<usize>))| {
            format!("FROM s{base} AS s{number}\n{}", copies(froms))
        };
        let text: String = stages.iter().enumerate().map(stage).collect();
        let is_wrong = stages.iter().enumerate().any(|(number, (_, froms))| froms.contains(&number));
        match build_to(&text, None) {
            Err(error) => prop_assert!(is_wrong, "{text}: {error}"),
            Ok((build, _)) => {
                for (place, stage) in build.stages.iter().enumerate() {
                    if let Base::Stage(base) = stage.base {
                        prop_assert!(base < place);
                    }
                    for step in &stage.plan.steps {
                        if let Action::Copy(Copying { from: From::Stage(from), .. }) = step.action {
                            prop_assert!(from < place);
                        }
                    }
                }
                prop_assert_eq!(&build.last().name, &format!("s{}", stages.len() - 1));
            }
        }
    }

    #[test]
    fn paths_are_absolute_and_clean(dir in "[a/.]{0,8}", path in "[a/.]{0,8}") {
        let found = below(&dir, &path);
        prop_assert!(found.starts_with('/') && (found == "/" || !found.ends_with('/')));
        prop_assert!(found[1..].split('/').all(|name| name != ".." && name != "." && (found == "/" || !name.is_empty())));
    }
}
