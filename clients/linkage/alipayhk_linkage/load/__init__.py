"""`alipayhk-client load`: puts the gateway under load, and tells the truth about it.

    command, session            from the flags to the exit status
    flags, mixing, plan         what was asked for; profile, amounts: how it is written
    arrivals, requests          when, and what, is sent
    engine, recording, spread, waiting   one process at work; worker, processes: several of them
    tally, verdict              what came of the run, and what limited it
    gates, comparison, intervals, verification   what it must keep to
    document, encoding, text, page, figures, plots, style   the reports
    panel                       the terminal while it runs

Every arrival has an intended time that nothing moves; latency is counted from it. What could not be
started in time is counted, and what the generator itself could not do is said.
"""
