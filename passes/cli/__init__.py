"""The command `stagecut`.

In the order in which a command line meets them:

    main           the command and its subcommands
    flags          a flag for each field of `Options`
    handed_on      subcommands with a command line of their own: run, generate, serve, export, check, measure, partition
    serving        serve: the model is cut first, if need be
    generating     generate: the model is cut first, if need be
    exporting      export: the weights of an artifact as a checkpoint
    compile_flags  the flags of compile in those two, and the new process that has what they made
    prepared       the artifact of a source, made and kept where there is none yet
    loading        imports that name the extra to install where one fails
    command        `stagecut compile` and `stagecut compare`
    terminal       progress, notes and messages on stderr; the exit status
    verify_stages  `--verify`: the stages beside the uncut model
    rounding       differences of results that rounding explains
    table          the plan as a table, and plans side by side
    browser        `--open`: the report in a browser
"""
