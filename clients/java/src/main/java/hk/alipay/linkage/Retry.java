package hk.alipay.linkage;

/** What to do next. */
public enum Retry {
    /** Wait {@link LinkageException#retryDelay()}, and send the very same request again. */
    SAME_REQUEST_ID("same_request_id"),
    /** Mend the request, and send it under a new id. */
    NEW_REQUEST_ID("new_request_id"),
    /** Stop: AlipayHK says not to retry, or newer news has overtaken this. */
    NEVER("never"),
    /** Stop, and tell the people who run the gateway. */
    OPERATOR("operator");

    private final String word;

    Retry(String word) {
        this.word = word;
    }

    /** Reads a word of the gateway. One that is missing, or newer than this client, is for a person. */
    static Retry of(String word) {
        for (Retry retry : values()) {
            if (retry.word.equals(word)) {
                return retry;
            }
        }
        return OPERATOR;
    }

    /** Returns the gateway's word for it. */
    @Override
    public String toString() {
        return word;
    }
}
