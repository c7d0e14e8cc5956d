package hk.alipay.linkage;

/** The next step for the caller. */
public enum Retry {
    /** Wait {@link LinkageException#retryDelay()}, then send exactly the same request again. */
    SAME_REQUEST_ID("same_request_id"),
    /** Correct the request, and send it with a new id. */
    NEW_REQUEST_ID("new_request_id"),
    /** Stop: AlipayHK forbids a retry, or a newer update of the same linkage was already applied. */
    NEVER("never"),
    /** Stop, and contact the operators of the gateway. */
    OPERATOR("operator");

    private final String word;

    Retry(String word) {
        this.word = word;
    }

    /** Returns the retry for the gateway's text; OPERATOR if it is absent or newer than this client. */
    static Retry of(String word) {
        for (Retry retry : values()) {
            if (retry.word.equals(word)) {
                return retry;
            }
        }
        return OPERATOR;
    }

    /** Returns the gateway's text for this step. */
    @Override
    public String toString() {
        return word;
    }
}
