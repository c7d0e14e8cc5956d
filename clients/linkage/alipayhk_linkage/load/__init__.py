"""`alipayhk-client load`: puts load on the gateway, and reports latency, throughput and errors.

    command, session            a run, from the flags to the exit status
    flags, mixing, plan         the command's options; profile, amounts: their syntax
    arrivals, requests          the time and the content of each call
    engine, recording, histogram, waiting   one process of the generator
    worker, processes           several processes
    totals, verdict             the result of the run, and its limit
    gates, comparison, intervals, verification   the checks that can fail a run
    document, encoding, text_report, html_report, figures, plots, style   the reports
    live_panel                  the progress on the terminal

Every arrival has an intended time, fixed before the run. Latency is measured from it, so a delay in the
generator or in the server shows in full. Late and dropped arrivals are counted, and the report says if the
generator itself was too slow.
"""
