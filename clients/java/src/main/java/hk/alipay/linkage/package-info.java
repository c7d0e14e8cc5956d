/** Calls the AlipayHK gateway, and says of every error what happened and what to do next. */
package hk.alipay.linkage;
